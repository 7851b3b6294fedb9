"""What the modules of the course export; each file is generated from ``modules/NN_name/name_dev.py``."""
