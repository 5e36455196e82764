"""What Auto Scaling refuses and moto does not: a second group of the same name."""


def refusal(region, call):
    """Why Auto Scaling would refuse the call, as (code, message), if it would."""
    # moto reads its environment when it is imported.
    from moto.autoscaling.models import autoscaling_backends
    from moto.core import DEFAULT_ACCOUNT_ID

    name = call.get("AutoScalingGroupName")
    if call.get("Action") == "CreateAutoScalingGroup":
        if name in autoscaling_backends[DEFAULT_ACCOUNT_ID][region].autoscaling_groups:
            return "AlreadyExists", f"AutoScalingGroup by this name already exists: {name}"
    return None
