"""The upper room of the cellar: estimators. Its rule: what users see of all estimators stands here, once.

It reads in this order: `_backbone_parameter` and `_auto_depth` (which network, cut where), `_labeled_images`,
`_groups` and `_checked_table` (what `fit` is given), `_network_estimator` (a fit), `_network_classifier` and
`_network_regressor` (what is predicted), `_layer_features` (what an extractor gives), `_find_fitted` and `_footprint`
(what others ask of a fitted one).
"""
