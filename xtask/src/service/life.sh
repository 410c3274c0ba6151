#!/bin/bash
# The life of the service under systemd, from its installation to its purge. Run as a unit inside the machine; each line of
# /out/steps is a step that came out as it has to, /out/verdict the end of it. A line `#: NAME` begins a part of it, which a
# virtual machine can play by itself.
exec >/out/log 2>&1
fail() {
    echo "FAILED: $*"
    echo "FAILED: $*" >/out/verdict
    journalctl --no-pager -n 100 -u 'agent-loop*'
    systemctl exit 1 || systemctl poweroff
    exit 1
}
ok() { echo "== ok: $*"; echo "$*" >>/out/steps; }
# Waits until a command succeeds.
until_ok() {
    for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
    return 1
}
state() { [ "$(agent-loop status "$1" --json | jq -r .state)" = "$2" ]; }
main_pid() { agent-loop status "$1" --json | jq -r .main_pid; }
pid_of() { systemctl show -P MainPID "$1"; }
keeper_is_another() { k=$(agent-loop status --json | jq -r '.keeper.pid // 0'); [ "$k" != 0 ] && [ "$k" != "$1" ]; }
daemon_is_another() { d=$(pid_of agent-loop); [ "$d" != 0 ] && [ "$d" != "$1" ] && systemctl is-active -q agent-loop; }

# A container has a boot id of its own, laid over the kernel's file. A unit with a /proc of its own (any that protects cgroups
# or tunables) does not see it, and keeper and daemon have to see the same one.
while umount /proc/sys/kernel/random/boot_id 2>/dev/null; do :; done

#: install
dpkg -i /agent-loop.deb || fail "the package cannot be installed"
for unit in agent-loop agent-loop-agents agent-loop-runs; do
    until_ok systemctl is-active -q $unit || fail "$unit is not active after the installation"
done
[ -z "$(agent-loop status --json | jq -r '.degraded[]')" ] || fail "something is missing: $(agent-loop status)"
ok "installed: the three units are active, nothing is missing"

#: outlive
id=$(agent-loop start --cwd / --limit 10m --grace 500ms -- sh -c 'sleep 1000 & while :; do echo tick; sleep 0.2; done') || fail "no start"
until_ok state "$id" running || fail "the run does not run"
main=$(main_pid "$id")
grep -q "0::/system.slice/agent-loop-runs.service/runs/run-$id" "/proc/$main/cgroup" || fail "it is elsewhere"
[ "$(stat -c %U "/proc/$main")" = agent-loop-agent ] || fail "it is somebody else's"
ok "a run is started as agent-loop-agent, in the cgroup that is held for it"

lives() { kill -0 "$main" && [ "$(main_pid "$id")" = "$main" ] && state "$id" running; }
for n in 1 2 3; do
    daemon=$(pid_of agent-loop)
    kill -KILL "$daemon"
    until_ok daemon_is_another "$daemon" || fail "the daemon does not come back"
    until_ok lives || fail "the run did not outlive the daemon"
done
ok "the daemon SIGKILLed three times: the run goes on, adopted"
for n in 1 2 3; do
    keeper=$(pid_of agent-loop-agents)
    kill -KILL "$keeper"
    until_ok keeper_is_another "$keeper" || fail "the keeper does not come back"
    until_ok lives || fail "the run did not outlive the keeper"
done
ok "the keeper SIGKILLed three times: the run goes on"
# As systemd-oomd and others end a unit: all of its cgroup at once. It is used again, and remembers that.
keeper=$(pid_of agent-loop-agents)
echo 1 >/sys/fs/cgroup/system.slice/agent-loop-agents.service/cgroup.kill || fail "the keeper's cgroup cannot be killed"
until_ok keeper_is_another "$keeper" || fail "the keeper does not come back after its cgroup was killed"
until_ok lives || fail "the run did not outlive the kill of the keeper's cgroup"
born=$(agent-loop start --cwd / -- sh -c 'exit 6') || fail "no start after the keeper's cgroup was killed"
until_ok state "$born" ended || fail "the run after the kill of the keeper's cgroup does not end"
[ "$(agent-loop status "$born" --json | jq -r .code)" = 6 ] || fail "$(agent-loop status "$born")"
ok "the keeper's cgroup killed: the run goes on, the next one is launched from the same cgroup"
holder=$(pid_of agent-loop-runs)
kill -KILL "$holder"
sleep 1
lives || fail "the run did not outlive the holder of its cgroup"
ok "the holder SIGKILLed: the run goes on"
systemctl restart agent-loop-agents agent-loop
until_ok lives || fail "the run did not outlive a restart of both"
ok "both restarted: the run goes on"
systemctl reload agent-loop || fail "no reload"
until_ok lives || fail "the run did not outlive a reload"
ok "reloaded"
# Agents in every state: one runs, one is being stopped and does not heed it, one waits for its turn, one ended.
sed -i 's/^\[host\]$/[host]\nmax_agents = 2/' /etc/agent-loop/config.toml
systemctl reload agent-loop || fail "no reload with a limit of two agents"
deaf=$(agent-loop start --cwd / --grace 8s -- sh -c 'trap "" INT TERM; while :; do sleep 0.2; done') || fail "no start of a deaf run"
until_ok state "$deaf" running || fail "the deaf run does not run"
waits=$(agent-loop start --cwd / -- sh -c 'exit 8') || fail "no start of one that waits"
until_ok state "$waits" queued || fail "it does not wait: $(agent-loop status "$waits")"
agent-loop kill "$deaf" --reason "before the upgrade" || fail "no kill of the deaf run"
until_ok state "$deaf" stopping || fail "it is not being stopped: $(agent-loop status "$deaf")"
daemon=$(pid_of agent-loop)
dpkg -i /agent-loop.deb || fail "the package cannot be installed over itself"
until_ok daemon_is_another "$daemon" || fail "the daemon was not restarted by the upgrade"
until_ok lives || fail "the run did not outlive an upgrade"
ok "upgraded: daemon and keeper are new, the run goes on with its deadline"
until_ok state "$deaf" ended || fail "the stop does not go on after the upgrade: $(agent-loop status "$deaf")"
[ "$(agent-loop status "$deaf" --json | jq -r '.outcome, .proven' | tr '\n' ' ')" = "operator true " ] || fail "$(agent-loop status "$deaf")"
until_ok state "$waits" ended || fail "who waited has no turn after the upgrade: $(agent-loop status "$waits")"
[ "$(agent-loop status "$waits" --json | jq -r .code)" = 8 ] || fail "$(agent-loop status "$waits")"
[ "$(agent-loop status "$born" --json | jq -r '.state, .code' | tr '\n' ' ')" = "ended 6 " ] || fail "$(agent-loop status "$born")"
ok "a run that was being stopped, one that waited and one that had ended came over the upgrade, with true statuses"
[ "$(agent-loop status "$id" --json | jq -r '.remaining_ms < 600000')" = true ] || fail "its deadline moved"

# As a newer package would have left it: the version in the head of the database.
version_of() { od -An -j60 -N4 -tu1 /var/lib/agent-loop/agent-loop.db | tr -d ' '; }
put_version() { printf '%b' "$1" | dd of=/var/lib/agent-loop/agent-loop.db bs=1 seek=60 conv=notrunc status=none; }
[ "$(version_of)" = 0003 ] || fail "the version of the state is $(version_of), and not the one of this test"
daemon=$(pid_of agent-loop)
put_version '\0000\0000\0000\0143'
dpkg -i /agent-loop.deb >/out/downgrade 2>&1 && fail "a package that does not know the state was installed"
put_version '\0000\0000\0000\0003'
grep -q "has version 99" /out/downgrade || fail "the refusal does not say why: $(cat /out/downgrade)"
[ "$(pid_of agent-loop)" = "$daemon" ] || fail "the refused package restarted the daemon"
lives || fail "the run did not outlive a refused package"
ok "a downgrade below the version of the state is refused; the run goes on"

#: stop
agent-loop kill "$id" --reason "the life of the service" || fail "no kill"
until_ok state "$id" ended || fail "the run does not end"
# With the last run the unit of the runs begins anew, and the daemon with it: it may be away for a moment.
was_stopped() { [ "$(agent-loop status "$id" --json | jq -r '.outcome, .proven' | tr '\n' ' ')" = "operator true " ]; }
until_ok was_stopped || fail "$(agent-loop status "$id")"
# The holder had been killed: with the last run its unit begins anew, and the next one is launched in it.
until_ok systemctl is-active -q agent-loop-runs || fail "the cgroup is not held again"
sleep 1
until_ok systemctl is-active -q agent-loop || fail "the daemon is not there again"
id=$(agent-loop start --cwd / -- sh -c 'exit 7') || fail "no start after all that"
until_ok state "$id" ended || fail "the next run does not end"
[ "$(agent-loop status "$id" --json | jq -r .code)" = 7 ] || fail "$(agent-loop status "$id")"
ok "stopped, its tree proven empty; the next run is launched and tells its status"
told() { journalctl -o json -u agent-loop "AGENT_LOOP_RUN=$id" | jq -es 'any(.MESSAGE | test("is over"))' >/dev/null; }
until_ok told || fail "the journal does not know the run: $(journalctl --no-pager -n 20 -u agent-loop)"
ok "the journal has what is told of a run under the id of the run"
agent-loop audit verify --account >/out/verify
case $? in 0 | 1 | 2) ok "the audit log verifies, its sums add up" ;; *) fail "the audit log: $(cat /out/verify)" ;; esac

#: tools
# What agents need: git, a compiler, a sandbox of their own, the real claude where it was put.
tools='set -e; cd "$(mktemp -d)"; git init -q . && git -c user.name=a -c user.email=a@localhost commit -q --allow-empty -m one
printf "int main(void) { return 3; }" >a.c; tcc a.c -o a; ./a || [ $? = 3 ]
bwrap --ro-bind / / --dev /dev --proc /proc --unshare-pid --unshare-net sh -c "[ \$(cat /proc/1/comm) = bwrap ]"
if [ -x /usr/local/bin/claude ]; then HOME=$PWD claude --version; fi; exit 7'
id=$(agent-loop start --cwd /tmp -- bash -c "$tools") || fail "no start of the tools"
until_ok state "$id" ended || fail "the tools do not end"
[ "$(agent-loop status "$id" --json | jq -r .code)" = 7 ] || fail "the tools: $(agent-loop status "$id") $(agent-loop logs "$id")"
agent-loop logs "$id" >/out/tools
ok "git, a compiler, a sandbox$([ -x /usr/local/bin/claude ] && echo ', the real claude') work in a run"

#: forge
# An issue from its label to its verified merge at a forge behind TLS, by the shipped units: API, push, clone, commit.
cp -a /etc/agent-loop/config.toml /config.before
echo '127.0.0.1 forge.test' >>/etc/hosts
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=an authority' -keyout /ca.key -out /ca.crt 2>/dev/null &&
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=forge.test -CA /ca.crt -CAkey /ca.key -keyout /tls.key \
        -addext subjectAltName=DNS:forge.test -addext basicConstraints=critical,CA:FALSE -out /tls.crt 2>/dev/null ||
    fail "no certificate"
cat >>/etc/agent-loop/config.toml <<'END' || fail "no configuration"

[[repo]]
name = "octo-org/playground"
api = "https://forge.test/api/v3"
token_file = "/etc/agent-loop/token"
allowed = ["alice"]
poll = "1s"
write_pause = "10ms"
END
agent='kind = "command"\ncommand = ["/bin/sh", "-c", "cat >/dev/null; id -un >who; git add who; git commit -qm who"]'
sed -i "s|^\[agent\]\$|[agent]\n$agent|" /etc/agent-loop/config.toml
forge --token /etc/agent-loop/token >/out/forge 2>&1 &
forge=$!
until_ok test -s /out/forge || fail "the forge does not start"
socat OPENSSL-LISTEN:443,bind=127.0.0.1,reuseaddr,fork,cert=/tls.crt,key=/tls.key,verify=0 "TCP:127.0.0.1:$(head -n 1 /out/forge)" &
tls=$!
systemctl restart agent-loop || fail "the daemon does not start with a repository: $(agent-loop config check)"
distrusts() { agent-loop status --json | grep -qi certificate || journalctl --no-pager -u agent-loop | grep -qi certificate; }
until_ok distrusts || fail "a certificate that nobody vouches for is not refused: $(agent-loop queue)"
cp /ca.crt /usr/local/share/ca-certificates/forge.crt
update-ca-certificates >/dev/null 2>&1 || fail "the certificate cannot be trusted"
systemctl restart agent-loop || fail "the daemon does not start again"
wait "$forge" || fail "the issue was not brought to its end: $(cat /out/forge; agent-loop queue; agent-loop status)"
kill "$tls"
cp -a /config.before /etc/agent-loop/config.toml
rm /etc/agent-loop/token
systemctl restart agent-loop || fail "the daemon does not start without the repository"
ok "an issue went to its verified merge at a forge behind TLS; a certificate of a stranger was refused"

#: anchored
# The journal of this systemd as the anchor: it keeps what a log that is put back to a past of its own has lost.
printf '\n[audit]\nanchor_journal = true\n' >>/etc/agent-loop/config.toml
systemctl restart agent-loop || fail "the daemon does not start with the journal as its anchor"
systemctl stop agent-loop
cp -a /var/log/agent-loop/audit /past
systemctl start agent-loop || fail "the daemon does not start again"
id=$(agent-loop start --cwd / -- true) || fail "no start with an anchor"
until_ok state "$id" ended || fail "the run with an anchor does not end"
systemctl stop agent-loop
journalctl -o json -t agent-loop >/kept.json
agent-loop audit verify --json --anchors /kept.json >/out/anchored
jq -e '(.code == 0 or .code == 2) and .anchored >= ([.signed, .of_others] | min)' /out/anchored >/dev/null ||
    fail "the journal does not anchor the log: $(cat /out/anchored)"
agent-loop audit verify --quiet /past
case $? in 1 | 2) ;; *) fail "the past of the log is not intact by itself" ;; esac
agent-loop audit verify --anchors /kept.json /past >/out/rolled-back
[ $? = 3 ] || fail "a log that was rolled back is not found: $(cat /out/rolled-back)"
systemctl start agent-loop || fail "the daemon does not start after all that"
ok "anchored in the journal; a log that was rolled back is intact by itself, and found by what the journal kept"

#: strangers
# What others on the host can do with it: nothing.
useradd --no-create-home somebody
for what in "cat /run/agent-loop/keeper/socket" "kill -0 $(pid_of agent-loop)" "kill -0 $(pid_of agent-loop-agents)" \
    "echo 1 >/sys/fs/cgroup/system.slice/agent-loop-runs.service/cgroup.kill" "ls /proc/$(pid_of agent-loop)/fd" "ls /var/lib/agent-loop" "ls /var/log/agent-loop" "ls /sys/fs/bpf/agent-loop" \
    "agent-loop ps" "agent-loop start --cwd / -- true"; do
    runuser -u somebody -- sh -c "$what" >/dev/null 2>&1 && fail "somebody can do: $what"
done
ok "another user can neither read nor ask nor start anything"

#: figures
systemd-analyze security --no-pager agent-loop.service | tail -1 | grep -o '[0-9][0-9]*\.[0-9]' | head -1 >/out/security
stamp() { systemctl show -P "$1" agent-loop; }
for _ in 1 2 3; do
    systemctl restart agent-loop || fail "no restart"
    echo $((($(stamp ActiveEnterTimestampMonotonic) - $(stamp ExecMainStartTimestampMonotonic)) / 1000))
done >/out/ready
for unit in agent-loop agent-loop-agents agent-loop-runs; do
    echo "$unit $(awk '/VmRSS/ {r=$2} /RssAnon/ {a=$2} END {print r, a}' "/proc/$(pid_of $unit)/status")"
done >/out/memory

#: remove
id=$(agent-loop start --cwd / -- sleep 1000)
until_ok state "$id" running || fail "the last run does not run"
main=$(main_pid "$id")
dpkg -r agent-loop || fail "the package cannot be removed"
kill -0 "$main" 2>/dev/null && fail "an agent outlives the removal"
for unit in agent-loop agent-loop-agents agent-loop-runs; do
    systemctl is-active -q $unit && fail "$unit outlives the removal"
done
left=$(ls -d /sys/fs/bpf/agent-loop /run/agent-loop 2>/dev/null; find /sys/fs/cgroup -name '*agent-loop*')
[ -z "$left" ] || fail "left after the removal: $left"
ok "removed with a run alive: it ended; no pin, cgroup or socket is left"
#: purge
dpkg -P agent-loop || fail "the package cannot be purged"
left=$(ls -d /etc/agent-loop /srv/agent-loop 2>/dev/null; find /var/lib/agent-loop -mindepth 1 -maxdepth 1 ! -name audit-key)
[ -z "$left" ] || fail "left after the purge: $left"
[ -d /var/log/agent-loop/audit ] || fail "the purge took the audit log"
ok "purged: only the logs and their keys are left"
#: end
echo passed >/out/verdict
systemctl exit 0 || systemctl poweroff
