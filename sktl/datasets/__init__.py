"""Utilities to load folders of images and to find unreadable images."""

from sktl.datasets._find_unreadable import find_unreadable_images
from sktl.datasets._folder import load_image_folder
from sktl.datasets._sample_folder import make_image_folder

__all__ = ["find_unreadable_images", "load_image_folder", "make_image_folder"]
