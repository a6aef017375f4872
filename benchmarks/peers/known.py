"""The peers that can be installed with pip."""

from benchmarks.peers.peer import Peer

# Only the library is built: its tools, tests and server take long, and some of them need the network.
_NOT_BUILT = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_SERVER", "LLAVA_BUILD")

PEERS = (
    Peer(
        name="llama.cpp",
        worker="benchmarks.peers.llamacpp",
        requirements="llamacpp.txt",
        build={
            "CMAKE_ARGS": " ".join(("-DGGML_NATIVE=ON", *(f"-D{part}=OFF" for part in _NOT_BUILT))),
            # GCC 12 declares that AMX's tile configuration reads 8 of its 64 bytes, and drops the stores of the others:
            # without these options 8 and 4 bit weights end in an illegal instruction.
            "CXXFLAGS": "-fno-tree-dse -fno-dse",
        },
        # Rounding random weights to 4 bits moves the logits by a third (8 M parameters), whichever engine computes with
        # them. Logits of another network would be off by 1.4.
        tolerances={"F32": 0.005, "F16": 0.01, "BF16": 0.05, "Q8_0": 0.1, "Q4_0": 0.6},
    ),
)
