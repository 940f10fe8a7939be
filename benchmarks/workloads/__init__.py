"""One module per workload, with ORDER, its place in the table, and WORKLOADS, a list of records."""
