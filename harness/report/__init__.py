"""What people see of a run: the page (`html`), what a CI server reads (`junit`), the terminal (`terminal`)."""
