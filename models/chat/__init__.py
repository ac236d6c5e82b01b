"""The chat: conversations, the steps of a message, history, inboxes, presence and blocks."""
