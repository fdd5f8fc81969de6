def main():
    raise SystemExit("this is not the server")
