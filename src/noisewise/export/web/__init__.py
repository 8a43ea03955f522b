"""The page that `noisewise export --to html` fills in: HTML, CSS, scripts, and ONNX Runtime Web."""
