from encoder.text import item_text
__all__=["item_text"]
