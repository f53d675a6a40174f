# One obvious command for each thing; CI calls the same ones.
.PHONY: run test reference lint format bench chaos soak docs golden lock clean

DATA ?= .minuet
VENV := .venv/bin

run: ## install, start the whole platform, deploy a first app and show its URL
	@scripts/install.sh run
	@$(VENV)/minuet up --data $(DATA) --sample

test: ## install what tests need and run them all
	@scripts/install.sh test
	@$(VENV)/lint-imports --no-cache >/dev/null || $(VENV)/lint-imports --no-cache
	@$(VENV)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: ## style, types and the layers of the house
	@scripts/install.sh test
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-cache

format: ## let ruff rewrite what it can
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

reference: ## write the reference pages that follow from the code
	@$(VENV)/python -m scripts.reference

golden: ## write the golden files anew; read the difference before committing it
	MINUET_WRITE_GOLDEN=1 $(VENV)/pytest tests/render tests/gateway -q

bench: ## measure, and print every figure with the machine's load beside it
	@scripts/install.sh test
	@$(VENV)/python -m bench

chaos: ## kill at random under load for MINUTES minutes, and say what each fault cost
	@scripts/install.sh test
	@$(VENV)/python -m bench.chaos --minutes $(or $(MINUTES),20)

soak: ## redeploy for MINUTES minutes, and say what grew
	@scripts/install.sh test
	@$(VENV)/python -m bench.soak --minutes $(or $(MINUTES),20)

docs: ## build the documentation; a warning is an error
	@scripts/install.sh docs
	$(VENV)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

lock: ## resolve the dependencies anew, with hashes and without addresses
	@scripts/install.sh test
	@for list in run test docs; do \
	    case $$list in run) groups="";; test) groups="--group dev";; docs) groups="--group dev --group docs";; esac; \
	    $(VENV)/uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-annotate --no-header \
	        --no-emit-index-url pyproject.toml --group install $$groups -o requirements/$$list.txt; \
	done

clean: ## remove what the build made, never the data directory
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache docs/_build
