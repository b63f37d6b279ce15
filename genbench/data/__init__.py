"""Data sets: where images come from, and batches of them on the device in an exact, resumable order.

A *source* (`sources`, `celeba`, `folder`; what conf/dataset instantiates) finds a split and decodes it to an
`ImageSet`: uint8 images in a canonical order with a hash. `Batches` draws training batches from one by
number.
"""
