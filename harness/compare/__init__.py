"""Two versions of a pipeline under the same load and faults: is the new one worse?"""
