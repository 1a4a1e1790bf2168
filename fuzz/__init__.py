"""Fuzz targets: everything that reads what a browser, a proxy or a store hands over.

Its one rule: a target is a plain function of bytes, so that atheris, hypothesis and plain random drive the same ones.
"""
