"""Image classification: an application of the engine, for a folder of images with a folder for each class."""
