"""The expression language of rules: text -> syntax -> checked terms -> an array per frame. Nothing is ``eval``."""
