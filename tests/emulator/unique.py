"""What AWS gives once and moto gives again: names of Auto Scaling groups and load balancers, ports of listeners."""


def refusal(region, call):
    """Why AWS would refuse the call, as (code, message), if it would."""
    # moto reads its environment when it is imported.
    from moto.autoscaling.models import autoscaling_backends
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.elbv2.models import elbv2_backends

    if call.get("Action") == "CreateAutoScalingGroup":
        name = call["AutoScalingGroupName"]
        if name in autoscaling_backends[DEFAULT_ACCOUNT_ID][region].autoscaling_groups:
            return "AlreadyExists", f"AutoScalingGroup by this name already exists: {name}"
    if call.get("Action") == "CreateListener":
        balancer = elbv2_backends[DEFAULT_ACCOUNT_ID][region].load_balancers.get(call["LoadBalancerArn"])
        if balancer and call["Port"] in [str(listener.port) for listener in balancer.listeners.values()]:
            return "DuplicateListener", "A listener already exists on this port for this load balancer"
    # Its classic namesake has a LoadBalancerName.
    if call.get("Action") == "CreateLoadBalancer" and "Name" in call:
        balancers = elbv2_backends[DEFAULT_ACCOUNT_ID][region].load_balancers.values()
        if call["Name"] in [balancer.name for balancer in balancers]:
            return "DuplicateLoadBalancerName", "A load balancer with the same name exists, but with different settings"
    return None
