# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# A wrong student: adds the decay to the gradient in place, and leaves out the corrections of Adam's averages.

# %% nbgrader={"grade": false, "grade_id": "optimizers-sgd", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class SGD(Optimizer):
    """Gradient descent."""

    array_names = ("momentum_buffer",)

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        options = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**options, "weight_decay": weight_decay, "nesterov": nesterov})

    def check_group(self, owner, group):
        super().check_group(owner, group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(f"{owner}: nesterov needs a momentum and no dampening")

    def update(self, data, gradient, state, group):
        gradient += group["weight_decay"] * data
        if group["momentum"]:
            gradient = momentum_direction(
                gradient, state, group["momentum"], group["dampening"], group["nesterov"]
            )
        data -= group["lr"] * gradient

# %% nbgrader={"grade": false, "grade_id": "optimizers-adam-update", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def adam_update(data, gradient, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """One step of Adam, as it is remembered: averages that begin at zero."""
    if not state:
        state.update(step=0, exp_avg=np.zeros_like(data), exp_avg_sq=np.zeros_like(data))
    state["step"] += 1
    state["exp_avg"] += (1 - betas[0]) * (gradient - state["exp_avg"])
    state["exp_avg_sq"] += (1 - betas[1]) * (gradient * gradient - state["exp_avg_sq"])
    data -= lr * state["exp_avg"] / (np.sqrt(state["exp_avg_sq"]) + eps)
