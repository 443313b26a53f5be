"""Folders -> samples, in the formats that import as a data set: tree, tile, VOC, YOLO, COCO, and plain images.

- images: any layout, recursive; nothing is a label.
- tree: `.../label/1.jpg`; the last folder level is the label, images at the root are unlabeled.
- tile: `x/1.jpg`, `x/1.txt`; one label a line, UTF-8, blank lines skipped, repeated ones once; no or an empty txt:
  unlabeled.
- voc: `x/1.jpg`, `x/1.xml`, or the devkit, `JPEGImages/` beside `Annotations/`; no xml: unlabeled.
- yolo: `obj.names`, `obj.data`, `train.txt`, `valid.txt`, `obj_train_data/`; no txt: unlabeled; an empty one: labeled,
  nothing is there.
- coco: one or more documents (`annotations.json`, `annotations/instances_train.json`, `train/_annotations.coco.json`)
  that list the images; not listed: unlabeled; listed without an annotation: labeled, nothing is there.

`list_folder` looks once at what lies there, `detect` says which format it is, `READERS` read it. In the order of their
imports:

    listing.py      what lies below a folder, and names taken apart
    texts.py        files of limited size, read whole
    found.py        what reading a folder gives, in any format
    sizes.py        how large an image is, by its header or its drawings
    classified.py   images, tree, tile
    voc_folder.py   voc
    yolo.py         yolo
    coco_folder.py  coco
    formats.py      which format a folder has, and who reads it

What cannot be read is a `Failure`; what was passed over is said in notes. Boxes are xyxy pixels of the upright image
(EXIF orientation applied), but those of VOC and COCO files, which are as they are written. Pixels are never decoded:
only YOLO needs the size of an image, and reads it from the header.
"""
