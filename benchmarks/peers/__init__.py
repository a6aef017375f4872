"""Other engines on the same weights, each in a process and a virtual environment of its own.

`python -m benchmarks.peers --install`, then `python -m benchmarks.peers`. A peer is an entry of `known.PEERS`, a worker
that its environment runs (`answering.answer`), and a file of requirements.
"""
