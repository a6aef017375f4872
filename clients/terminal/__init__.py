"""`llada`: the terminal's way to a `llada-server`: watch a canvas denoise, chat, complete, fill gaps."""
