"""The upper room of the cellar: estimators. Its rule: what users see of all estimators stands here, once.

It reads in this order: `_checked_table`, `_content_digests`, `_target_coding`, `_groups` and `_validation_split` (what
`fit` is given), `_backbone_parameter`, `_auto_depth` and `_norm_shift` (which network, cut where), `_fit_tasks` and
`_network_estimator` (a fit), `_network_classifier` and `_network_regressor` (what is predicted), `_find_fitted`,
`_layer_features` and `_footprint` (what others ask of a fitted one), `_whole_copies` (what its copies hold).
"""
