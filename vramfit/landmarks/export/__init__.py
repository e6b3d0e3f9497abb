"""A trained network as ONNX, TorchScript or a bare weights file."""
