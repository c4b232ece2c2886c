"""Only the compiled part; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["native/rtp/build.py:ffi"])
