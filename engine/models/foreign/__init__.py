"""Models from elsewhere: an ONNX graph or a torch.export program, and a model.json that says what goes in and out.

In the order of their imports:

    forms.py        what model.json says, read and checked; the files beside it
    graphs.py       the graph on a device: ONNX, torch.export
    placing.py      what goes in: images of its size, in its colors and numbers
    asking.py       the graph asked batch by batch, its numbers checked
    classifier.py   what comes out: probabilities
    detector.py     what comes out: boxes
    loading.py      load a model, and ask it once
"""
