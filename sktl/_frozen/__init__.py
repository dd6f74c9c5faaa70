"""Frozen prefixes. Rule: the output of a frozen stage is computed once per image.

A prefix is defined by two values and runs with one call:
``FrozenPrefix(PrefixSpec(...), Runtime(...)).run(images)``. Reading order:

* the request: `_spec` (which function of an image) and `_runtime` (how to run it);
* the computation: `_prefix_network` (the module), `_onnx` and `_runners` (engines);
* the cache: `_cache` (by key) and `_keyed_cache` (by image and output);
* a pass over a table: `_prefix` starts one and `_pass` runs it; `_decoder` and
  `_map_ahead` read the images, `_output_tables` collects the rows, `_search_widening`
  computes layers in advance;
* the training data: `_augmentation` and `_draw_views`, `_activations` and `_views`;
* the reports: `_readable` and `_progress`.
"""
