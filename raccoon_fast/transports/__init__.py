"""One module a protocol: payload out, answer in, failures named. No retry and no policy here."""
