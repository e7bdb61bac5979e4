"""How the shipped nano backbone was made: its vision tower on its own first, then the whole on captions and questions."""
