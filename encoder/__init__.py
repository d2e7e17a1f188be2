"""Run a bundle: texts in, unit vectors out. Needs numpy, tokenizers and onnxruntime, and imports the latter only on
opening.

open_bundle(path)      an OnnxEncoder, verified, proved and warm
check_bundle(path)     a BundleReport: what it is and how fast it is here
HashingEncoder         a deterministic stand-in for tests
item_text(...)         the text of an item, by a numbered template
"""

from encoder.bundle import SHIPPED, Bundle, Golden, Manifest, read_bundle
from encoder.check import BundleReport, check_bundle
from encoder.errors import BundleError, EncoderError, ProviderError
from encoder.hashing import HashingEncoder
from encoder.onnx import OnnxEncoder, open_bundle
from encoder.sessions import Provider
from encoder.text import LATEST_TEMPLATE, item_text

__all__ = [
    "LATEST_TEMPLATE",
    "SHIPPED",
    "Bundle",
    "BundleError",
    "BundleReport",
    "EncoderError",
    "Golden",
    "HashingEncoder",
    "Manifest",
    "OnnxEncoder",
    "Provider",
    "ProviderError",
    "check_bundle",
    "item_text",
    "open_bundle",
    "read_bundle",
]
