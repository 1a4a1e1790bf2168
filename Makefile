# Thin on purpose: ./dev does the work and explains itself.
.PHONY: demo test cover check fmt bench fuzz pants clean
export SEED RUNS

demo test cover check fmt bench fuzz pants clean:
	@./dev $@

prove-%:
	@./dev prove $*
