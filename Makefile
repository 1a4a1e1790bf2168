# Thin on purpose: ./dev does the work and explains itself.
.PHONY: demo test test-fast test-long test-all cover check fmt bench fuzz dist pants clean
export PORT RUNS SEED

demo test test-fast test-long test-all cover check fmt bench fuzz dist pants clean:
	@./dev $@

prove-%:
	@./dev prove $*
