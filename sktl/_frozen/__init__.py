"""The lowest room of the cellar: frozen prefixes. Its rule: the output of a frozen stage is computed once per image.

A prefix is two values and one call: ``FrozenPrefix(PrefixSpec(...), Runtime(...)).run(images)``. The room reads in this
order:

* what is asked for: `_spec` (which function of an image) and `_runtime` (how a network is run);
* what runs: `_prefix_network` (the module), `_onnx` and `_runners` (the engines);
* where outputs are kept: `_cache` (by key) and `_keyed_cache` (by image and output);
* a pass over a table: `_prefix` begins one, `_pass` is its story; `_decoder` and `_map_ahead` bring the images,
  `_output_tables` takes the rows, `_search_widening` looks ahead;
* what training takes from it: `_augmentation` and `_activations`;
* what is told of it: `_readable` and `_progress`.
"""
