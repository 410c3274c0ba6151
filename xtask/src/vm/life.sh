# What only a machine of its own can show: controllers, a shutdown and a power cut with agents running, another boot.

#: limits
# Limits that controllers keep.
id=$(agent-loop start --cwd / --memory-bytes 50000000 -- tail -n 1 /dev/zero) || fail "no start with a limit of memory"
until_ok state "$id" ended || fail "who takes all memory goes on"
agent-loop why "$id" | tr -s ' \n' ' ' | grep -q "killed 1 of its processes for want of memory" || fail "$(agent-loop why "$id")"
ok "memory.max: the kernel kills it, and the end says so"
# A shell would end at the first fork that fails.
bomb='while (1) { my $child = fork; if (!defined $child) { sleep 1 } elsif (!$child) { sleep 1000; exit } }'
id=$(agent-loop start --cwd / --tasks 30 --grace 100ms -- perl -e "$bomb") || fail "no start with a limit of tasks"
at=/sys/fs/cgroup/system.slice/agent-loop-runs.service/runs/run-$id
until_ok grep -q 'max [1-9]' "$at/pids.events" || fail "its limit of tasks is not met"
[ "$(cat "$at/pids.current")" -le 30 ] || fail "it has $(cat "$at/pids.current") tasks"
agent-loop kill "$id" --reason "the limit was met" || fail "no kill"
until_ok state "$id" ended || fail "it does not end"
[ "$(agent-loop status "$id" --json | jq -r .proven)" = true ] || fail "$(agent-loop status "$id")"
ok "pids.max: who forks without end meets it, is stopped, its tree proven empty"

#: leave
# A run that is to be seen again after another boot.
id=$(agent-loop start --cwd / --limit 10m --grace 500ms -- sh -c 'sleep 1000 & while :; do echo tick; sleep 0.2; done') || fail "no start"
until_ok state "$id" running || fail "the run does not run"
echo "$id" >/left
cat /proc/sys/kernel/random/boot_id >/boot-id
ok "a run is left running"

#: cut
# The power fails: what is not on the disk by now is gone.
sleep 2
/verdict-16

#: returned
# Another boot after `leave`, however the one before ended.
id=$(cat /left)
[ "$(cat /boot-id)" != "$(cat /proc/sys/kernel/random/boot_id)" ] || fail "this is no other boot"
until_ok systemctl is-active -q agent-loop || fail "the daemon is not there after the boot"
until_ok state "$id" ended || fail "the run of the boot before has not ended: $(agent-loop status "$id")"
outcome=$(agent-loop status "$id" --json | jq -r .outcome)
[ "$outcome" = lost_to_reboot ] || fail "the run ended as $outcome: $(agent-loop why "$id")"
agent-loop audit verify --account >/out/verify
case $? in 0 | 1 | 2) ;; *) fail "the audit log: $(cat /out/verify)" ;; esac
# The pins went with the boot: the daemon made them anew, and they work.
next=$(agent-loop start --cwd / -- sh -c 'exit 7') || fail "no start after the boot"
until_ok state "$next" ended || fail "the run after the boot does not end"
[ "$(agent-loop status "$next" --json | jq -r .code)" = 7 ] || fail "$(agent-loop status "$next")"
[ -z "$(agent-loop status --json | jq -r '.degraded[]')" ] || fail "something is missing: $(agent-loop status)"
ok "booted again: the run is lost to the reboot, the audit log verifies, the pins are made anew, the next run tells its status"
