# The commands of this repository; `make` alone lists them. Each does its own set-up, once.

EXTRAS := train,exact,serve,dev,docs
VENV := .venv
BIN := $(VENV)/bin

# The first interpreter that is new enough and can make an environment; name another by `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

# What decides the installation is in the stamp's name, so neither a second `make` nor a new file time installs anything.
STAMP := $(VENV)/installed-$(shell { cat pyproject.toml constraints.txt src/implicit_l2o/_version.py; echo '$(EXTRAS)'; pwd; } | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help setup demo gallery test lint format docs bench results images package lock clean

comma := ,

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv and install what the other commands need, as constraints.txt pins it

define NEED_PYTHON
@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found (python3.11 ... python3.14, python3). \
Install one, on Debian or Ubuntu: apt install python3.11 python3.11-venv, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
endef

# torch goes first and alone: pip then takes a CPU build of the pinned version where its configuration offers one, and
# the last installation finds the requirement met. hatchling precedes the package so that the build is pinned as well.
$(STAMP):
	$(NEED_PYTHON)
	@echo "Setting up $(VENV), once: this downloads PyTorch and takes some minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@rm -f $(VENV)/installed-*
	$(BIN)/python -m pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

demo: setup  ## train the two first models and draw what they do, in demo_out/
	$(BIN)/il2o demo --out demo_out --seed 0

gallery: setup  ## run the scripts of gallery/, ten minutes or so, with their times; figures in gallery_out/
	$(BIN)/python -m gallery

# Two workers of one thread each: with more threads than free cores, small tensor operations wait for each other.
test: setup  ## run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: setup  ## check style and types, and that the pages show the numbers of results/
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python
	$(BIN)/python scripts/render.py --check

format: setup  ## mend and format the code, and fill the pages with the numbers of results/
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
	$(BIN)/python scripts/render.py

docs: setup  ## build the documentation: site/index.html
	$(BIN)/python -m mkdocs build --strict

bench: setup  ## measure again what the benchmarks write to results/ (the peers: pip install -e '.[bench]')
	set -e; for name in memory_depth overhead decoders path_epochs projectors assignment assignment_splitting allocator lp_steps lp_layers image_step jfb_memory jfb_epoch_time torchdeq_step cvxpy_layers serve_load soak; do $(BIN)/python -m benchmarks.$$name; done

SEEDED = $(BIN)/il2o run experiments/$(1).yaml --seeds $(2) --folder runs/$(1) --overwrite $(3) && $(BIN)/python scripts/keep.py runs/$(1)

VARIED = $(BIN)/il2o run experiments/$(1).yaml --name $(2) --seeds $(3) --folder runs/$(2) --overwrite $(4) && $(BIN)/python scripts/keep.py runs/$(2)
THREE = 0$(comma)1$(comma)2
COMPARISON = implicit_l2o.applications.ct.comparison
BACKWARD = implicit_l2o.applications.images.backward_comparison

# Times are of a quiet machine only. MNIST is downloaded, or taken from a folder: make results MNIST="--data.folder DIR"
results: setup  ## run the experiments of the tables again, some hours, and fill the pages with their numbers
	$(call SEEDED,shortest_path_5x5,$(shell seq -s , 0 9),) --figures paths residuals
	$(call SEEDED,shortest_path_variants,$(shell seq -s , 0 9),)
	set -e; for side in 5 10 15 20 25 30; do $(call SEEDED,shortest_path_grid_$$side,$(THREE),); done
	set -e; for side in 5 10 20; do \
		$(call VARIED,shortest_path_costs_$$side,shortest_path_costs_$${side}_degree_6,$(THREE),); \
		$(call VARIED,shortest_path_costs_$$side,shortest_path_costs_$${side}_degree_8,$(THREE),--data.degree 8 --model.decision 3.0); done
	set -e; for side in 50 100; do $(call SEEDED,shortest_path_$${side}x$$side,$(THREE),); done
	$(BIN)/python -m implicit_l2o.applications.shortest_path.backward_study --out results
	$(BIN)/python scripts/check_paths.py runs/shortest_path_grid_* runs/shortest_path_costs_* runs/shortest_path_*x*0
	$(call SEEDED,knapsack,$(THREE),) --figures selections values doubt
	$(BIN)/python -m implicit_l2o.applications.knapsack tune
	$(BIN)/python -m implicit_l2o.applications.knapsack run
	$(BIN)/python scripts/check_knapsack.py
	$(BIN)/python -m implicit_l2o.applications.warcraft --seeds 21 22 23 --assets docs/assets
	$(BIN)/python scripts/check_warcraft.py
	$(call SEEDED,travelling_salesman_20,$(THREE),) --figures tours doubt
	set -e; for name in travelling_salesman_20_degree_6 travelling_salesman_50; do $(call SEEDED,$$name,$(THREE),); done
	$(BIN)/python -m benchmarks.tours
	$(call SEEDED,digits,5$(comma)6$(comma)7$(comma)8$(comma)9,) --figures images_and_certificates what_the_certificates_catch
	$(call SEEDED,mnist,0$(comma)1$(comma)2,$(MNIST))
	$(call SEEDED,images,5$(comma)6$(comma)7,) --figures images_and_certificates
	$(call SEEDED,images_mnist,$(THREE),$(MNIST))
	$(BIN)/python -m $(BACKWARD) --data mnist --gamma 0.9 --train 2000 --validation 500 --test 2000 --epochs 4 --check-every 1 \
		--name jfb_mnist_reduced --figures docs/assets $(MNIST_FOLDER)
	$(BIN)/python -m $(BACKWARD) --data cifar10 --train 3000 --validation 500 --test 5000 --epochs 5 --batch-size 50 \
		--learning-rate 0.003 --probe 8 --name jfb_cifar10_reduced --figures docs/assets $(CIFAR10) --modes JFB "Neumann(1)" \
		"Neumann(5)" "Implicit, GMRES" "Implicit, CG" "TorchDEQ, 1-step" "TorchDEQ, phantom(5)" "TorchDEQ, implicit" "explicit twin"
	$(BIN)/python -m $(BACKWARD) --data digits --epochs 5 --seeds 0 --modes JFB "Implicit, GMRES" --name jfb_digits_reduced
	$(BIN)/python -m implicit_l2o.applications.learned_cost --out results --figures docs/assets
	$(call SEEDED,dictionary,1$(comma)2$(comma)3,) --figures signals properties atoms
	$(call SEEDED,dictionary_small,$(shell seq -s , 0 4),)
	$(BIN)/python scripts/check_dictionary.py runs/dictionary
	set -e; for name in ct_64 ct_64_averaged ct_64_free ct_baselines_64 ct_128_free ct_128 ct_128_averaged ct_baselines_128 ct_noiseless; do \
		$(BIN)/il2o run experiments/$$name.yaml --folder runs/$$name --overwrite; $(BIN)/python scripts/check_ct.py runs/$$name; done
	$(BIN)/python -m $(COMPARISON) convex=runs/ct_64 averaged=runs/ct_64_averaged free=runs/ct_64_free \
		learned_primal_dual=runs/ct_baselines_64 --out results/ct_64.json
	set -e; for name in ct_64_free ct_64_averaged ct_64; do $(BIN)/il2o run experiments/$$name.yaml --seed_everything 1 --data.seed 0 \
		--folder runs/$${name}_second --overwrite; $(BIN)/python scripts/check_ct.py runs/$${name}_second; done
	$(BIN)/il2o run experiments/ct_baselines_64.yaml --folder runs/ct_baselines_64_second --overwrite
	$(BIN)/python -m $(COMPARISON) convex=runs/ct_64_second averaged=runs/ct_64_averaged_second free=runs/ct_64_free_second \
		learned_primal_dual=runs/ct_baselines_64_second --out results/ct_64_second.json
	$(BIN)/python -m $(COMPARISON) convex=runs/ct_64 averaged=runs/ct_64_averaged free=runs/ct_64_free --reference constant \
		--out results/ct_64_accelerated.json
	$(BIN)/python -m $(COMPARISON) convex=runs/ct_128 averaged=runs/ct_128_averaged free=runs/ct_128_free \
		learned_primal_dual=runs/ct_baselines_128 --out results/ct_128.json
	$(BIN)/python -m $(COMPARISON) convex=runs/ct_noiseless --reference tv_equality --out results/ct_noiseless.json
	$(BIN)/python scripts/ct_certificates.py runs/ct_64 --beside runs/ct_baselines_64
	$(BIN)/python -m benchmarks.ct_solvers
	$(BIN)/python -m implicit_l2o.applications.ct.classical_table
	$(BIN)/python -m implicit_l2o.applications.matrix_games --tune
	$(BIN)/python -m implicit_l2o.applications.matrix_games --seeds 11 12 13 --assets docs/assets
	$(BIN)/python -m implicit_l2o.applications.matrix_games --train 10 --validation 50 --sizes 25 --no-cyclic --seconds 2 \
		--methods payoff_response black_box --name matrix_games_few --runs runs/matrix_games_few
	$(BIN)/python scripts/check_matrix_games.py
	$(BIN)/python -m benchmarks.traffic_data --cache runs/traffic_data
	set -e; for name in toy SiouxFalls Eastern-Massachusetts Berlin-Friedrichshain Berlin-Tiergarten Anaheim; do \
		$(BIN)/python -m implicit_l2o.applications.traffic $$name; $(BIN)/python scripts/check_traffic.py $$name; done
	$(call SEEDED,arbitrage,$(shell seq -s , 0 4),) --figures risk_and_profit pools
	$(call SEEDED,arbitrage_volatility,$(shell seq -s , 0 4),)
	$(BIN)/python scripts/check_arbitrage.py runs/arbitrage
	$(BIN)/python scripts/render.py

# Days on a CPU, hours on a GPU; a data set that is downloaded may be taken from a folder: make images CIFAR10="--folder DIR"
images: setup  ## compare all backward modes on the whole image data sets, and fill the page with the numbers
	$(BIN)/python -m $(BACKWARD) --data digits --epochs 20 --seeds 0 1 2 3 4 --figures docs/assets
	$(BIN)/python -m $(BACKWARD) --data mnist --epochs 30 --figures docs/assets $(MNIST_FOLDER)
	$(BIN)/python -m $(BACKWARD) --data svhn --epochs 40 --figures docs/assets $(SVHN)
	$(BIN)/python -m $(BACKWARD) --data cifar10 --epochs 60 --figures docs/assets $(CIFAR10)
	$(BIN)/python -m $(BACKWARD) --data cifar10_augmented --epochs 200 --figures docs/assets $(CIFAR10)
	$(BIN)/python scripts/render.py

# Clean environments of its own, so it needs no set-up.
package:  ## build wheel and sdist, install and use them on every Python from 3.11 that is found
	$(NEED_PYTHON)
	"$(PYTHON)" scripts/check_package.py

lock:  ## resolve constraints.txt anew, for every extra, in an environment of its own
	$(NEED_PYTHON)
	"$(PYTHON)" -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(VENV)-lock/bin/python -m pip install --quiet hatchling editables '.[train,exact,cvxpy,ct,serve,bench,docs,dev,package]'
	$(VENV)-lock/bin/python -m pip list --format=freeze --exclude pip --exclude implicit_l2o \
		| grep -v -i -E '^(nvidia|cuda|triton)' | sed 's/+.*//' > constraints.txt
	rm -rf $(VENV)-lock

clean:  ## remove .venv and everything generated (results/ stay)
	rm -rf $(VENV) $(VENV)-lock demo_out gallery_out runs site build dist lightning_logs .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
