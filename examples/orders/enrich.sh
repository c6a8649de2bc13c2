#!/bin/sh
# Worker 1: orders -> priced. A line that is no order goes to the dead letters.
#
# $1 is a Python with confluent-kafka. The environment says where Kafka is and what the topics are called:
# KAFKA ORDERS PRICED REFUSED GROUP
#
# Each line travels with the place that it came from (partition, offset). So the last of the three knows what is done,
# and commits that and nothing else: whatever is killed, the orders under way are read again. When one of the three
# ends, the other two see their pipe closed and end too, and whoever watches over this script starts it again.
set -eu
here=$(dirname "$0")
"$1" "$here/read_orders.py" | perl "$here/enrich.pl" | "$1" "$here/write_orders.py"
