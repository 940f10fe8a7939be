"""The intermediate representations: graph, program, loops; and the ops they speak of."""
