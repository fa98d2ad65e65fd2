"""Networks: models by name, layers, capture, masks, edits, surgery, costs, files. May import
cells and system.
"""
