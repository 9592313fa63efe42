def html(result):
    return "<!doctype html>"
