"""The bundle: a served model's directory, with everything that answers and nothing that runs.

    card.json  manifest.json  README.md  golden.json  items.parquet  recommender.safetensors
    models/<name>/config.json model.safetensors heads.safetensors tokenizer.json encoder.onnx
    encoder.int8.onnx

Weights are safetensors and ONNX, the rest JSON and Parquet: no pickle, no code.

names: what its files are called. manifest: that they are whole, and nothing else. card: what it
says of itself. arrays: its numbers as mapped memory.
"""
