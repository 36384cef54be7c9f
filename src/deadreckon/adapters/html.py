HEAD = TAIL = ""


def article(event):
    return ""
