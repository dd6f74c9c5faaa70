"""The lowest room of the cellar: frozen prefixes. Its rule: the output of a frozen stage is computed once per image.

It reads in this order: `_prefix_network` (the module that is run), `_onnx` and `_runners` (what runs it), `_cache`
(where its output is kept), `_prefix` (look up, decode, run, keep), `_augmentation` and `_activations` (what training
takes from it), `_readable` and `_progress` (what is told of it).
"""
