"""Landmarks in radiographs: an application of the engine, with its data, network, training and evaluation."""
