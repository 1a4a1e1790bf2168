# Thin on purpose: ./dev does the work and explains itself.
.PHONY: demo test test-fast test-long test-all compat docs screenshots cover check fmt bench fuzz dist pants clean

demo test test-fast test-long test-all compat docs screenshots cover check fmt bench fuzz dist pants clean:
	@./dev $@

prove-%:
	@./dev prove $*
