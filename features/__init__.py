"""What is in the image: from a slide and its annotation to one bag of embedded tiles. No labels.

Each room is imported by its own name, e.g. ``from features.extraction.extract import extract``; importing the
package costs nothing.
"""
