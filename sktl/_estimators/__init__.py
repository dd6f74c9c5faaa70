"""Code that all estimators share: what users see of every estimator is defined here.

Reading order: `_checked_table`, `_content_digests`, `_target_coding`, `_groups` and
`_validation_split` (the input of `fit`), `_backbone_parameter`, `_auto_depth` and
`_norm_shift` (which network, and how deep it is frozen), `_fit_tasks` and
`_network_estimator` (a fit), `_network_classifier` and `_network_regressor`
(predictions), `_find_fitted`, `_layer_features` and `_footprint` (use of a fitted
estimator), `_whole_copies` (copies of it).
"""
