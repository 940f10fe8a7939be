"""One module per framework, with PEERS, a list of `benchmarks.peer.Peer`."""
