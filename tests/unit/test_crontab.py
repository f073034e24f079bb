"""`init --crontab`: what a crontab did, as a `jobs.toml`, and what is said of the lines that can't be carried over."""

from __future__ import annotations

import subprocess
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cronsim import CronSim
from toml_file import Toml

from hueyctl.config.crontab import Converted, from_crontab
from hueyctl.config.crontab_names import name_of
from hueyctl.model.definition import ScriptBody
from hueyctl.model.schedule import FireTimes


def converted(text: str, **more: Any) -> Converted:
    return from_crontab(text, timezone="UTC", **more)


def made(text: str, **more: Any) -> dict[str, Any]:
    return tomllib.loads(converted(text, **more).text)


def one(text: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one job of this crontab, with the defaults, and its schedule."""
    found = made(text, **more)
    ((name, job),) = found["jobs"].items()
    return found["defaults"] | job, found.get("schedules", {}).get(name, {})


def notes(text: str, **more: Any) -> list[str]:
    return [f"{number}: {note}" for number, note in converted(text, **more).notes]


LINES = """
    30 2 * * * /opt/bin/backup
    */15 9-17 * * mon-fri sync
    0,20,40 */2 1-7 jan,jul * quarter
    0 0 13 * 5 both
    0 0 */2 * sun starred
    5 4 29 2 * leap
    @hourly hourly
    @daily daily
    @midnight midnight
    @weekly weekly
    @monthly monthly
    @yearly yearly
    @annually annually
    59 23 31 12 7 last
    1-59/7 0-23/5 * * 1-5/2 stepped
    """


def test_every_line_fires_when_cron_fired_it_over_a_year(toml: Toml) -> None:
    project = toml.read(converted(LINES).text)
    lines = [line.split() for line in LINES.strip().splitlines()]
    assert len(project.schedules) == len(lines) == 15
    begin = datetime(2027, 12, 31, 23, 59, tzinfo=UTC)  # the year behind it is a leap year
    end = begin + timedelta(days=366)
    aliases = {
        "@hourly": "0 * * * *",
        "@daily": "0 0 * * *",
        "@midnight": "0 0 * * *",
        "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *",
        "@yearly": "0 0 1 1 *",
        "@annually": "0 0 1 1 *",
    }
    for schedule, words in zip(project.schedules.values(), lines, strict=True):
        expression = aliases.get(words[0]) or " ".join(words[:5])
        theirs = []
        for at in CronSim(expression, begin):
            if at > end:
                break
            theirs.append(at)
        assert theirs, expression
        assert list(FireTimes(schedule).between(begin, end)) == theirs, expression


def test_what_cron_did_is_kept(toml: Toml) -> None:
    project = toml.read(converted("0 5 * * * /opt/bin/backup.sh --full > /dev/null 2>&1").text)
    job, schedule = project.jobs["backup"], project.schedules["backup"]
    assert job.body == ScriptBody(text="/opt/bin/backup.sh --full > /dev/null 2>&1", shell=("/bin/sh", "-c"))
    assert (job.dir.is_absolute(), job.retries, job.timeout) == (True, 0, None)
    assert (schedule.target, schedule.overlap, schedule.catch_up) == ("backup", "allow", "none")


def test_variables_hold_for_what_comes_below_them() -> None:
    found = made("A=1\n* * * * * one\nB = 'two words' \nA=3\n* * * * * two\n")
    assert "env" not in found["defaults"]
    assert found["jobs"]["one"]["env"] == {"A": "1"}
    assert found["jobs"]["two"]["env"] == {"A": "3", "B": "two words"}


def test_what_holds_for_all_lines_is_a_default() -> None:
    found = made('PATH=/opt/bin:/bin\nSHELL=/bin/bash\n"Q" = "a b"\n* * * * * one\nX=1\n* * * * * two\n')
    assert found["defaults"]["env"] == {"PATH": "/opt/bin:/bin", "Q": "a b"}
    assert found["defaults"]["shell"] == ["/bin/bash", "-c"]
    assert found["jobs"]["two"]["env"] == {"X": "1"}


def test_home_is_the_folder_in_which_lines_run() -> None:
    found = made("* * * * * one\nHOME=/srv/app\nSHELL=/bin/bash\n* * * * * two")
    assert found["defaults"]["dir"] == "~"
    assert "dir" not in found["jobs"]["one"]
    assert (found["jobs"]["two"]["dir"], found["jobs"]["two"]["env"]) == ("/srv/app", {"HOME": "/srv/app"})
    assert found["jobs"]["two"]["shell"] == ["/bin/bash", "-c"]


def test_cron_tz_and_random_delay_are_the_schedule_s() -> None:
    text = "0 1 * * * early\nCRON_TZ=Europe/Berlin\nRANDOM_DELAY=10\n0 2 * * * late"
    found = made(text)["schedules"]
    assert "timezone" not in found["early"]
    assert (found["late"]["timezone"], found["late"]["jitter"]) == ("Europe/Berlin", "10m")


def test_lines_of_a_time_zone_that_there_is_not_are_not_carried_over() -> None:
    text = "CRON_TZ=Mars/Base\n0 2 * * * lost\nCRON_TZ=UTC\n0 2 * * * kept"
    assert list(made(text)["jobs"]) == ["kept"]
    assert notes(text) == ['2: not carried over: there is no time zone "Mars/Base"']
    assert "#   0 2 * * * lost" in converted(text).text


@pytest.mark.parametrize("name", ["MAILTO", "MAILFROM", "LOGNAME", "CONTENT_TYPE"])
def test_what_means_nothing_here_is_said(name: str) -> None:
    text = f"{name}=x@example.org\n* * * * * a"
    (note,) = notes(text)
    assert note.startswith(f"1: {name} means nothing here: ")
    assert "env" not in made(text)["defaults"]


def test_an_empty_mailto_is_what_is_done_anyway() -> None:
    assert notes('MAILTO=""\n* * * * * a') == []


def test_what_nobody_expands_is_said() -> None:
    assert notes("PATH=$HOME/bin:/bin\n* * * * * a") == [
        "1: PATH is carried over as it stands: neither cron nor hueyctl expands $"
    ]


def test_hueyctl_s_own_variables_are_not_carried_over() -> None:
    (note,) = notes("HUEYCTL_JOB=x\n* * * * * a")
    assert note == "1: not carried over: HUEYCTL_JOB is a variable that hueyctl sets itself"


@pytest.mark.parametrize(
    "command",
    [
        r"cat%one%two",
        r"cat; cat%%two lines, the first of them empty",
        r"echo 50\%; cat%it's \% 'quoted'%END%$HOME `id` \\",
        "cat # a comment%behind it",
        r"echo 100\% of it",
    ],
)
def test_percent_signs_mean_what_they_mean_to_cron(command: str) -> None:
    job, _ = one(f"* * * * * {command}")
    done = subprocess.run([*job["shell"], job["script"]], capture_output=True, check=True, text=True, timeout=20)
    # As cron does it: the first bare % ends the command, each further one a line of its standard input.
    parts = command.replace(r"\%", "\1").split("%")
    program, *given = [part.replace("\1", "%") for part in parts]
    stdin = "\n".join(given) + "\n" if given else ""
    theirs = subprocess.run(
        ["/bin/sh", "-c", program], input=stdin, capture_output=True, check=True, text=True, timeout=20
    )
    assert done.stdout == theirs.stdout


def test_standard_input_for_a_foreign_shell_is_not_carried_over() -> None:
    text = "SHELL=/bin/csh\n* * * * * cat%one\n* * * * * fine"
    assert list(made(text)["jobs"]) == ["fine"]
    assert notes(text) == ["2: not carried over: its standard input (after the %) can't be written for /bin/csh"]


def test_a_job_of_reboot_is_carried_over_and_nothing_starts_it() -> None:
    job, schedule = one("@reboot /opt/bin/warm-up")
    assert (job["script"], schedule) == ("/opt/bin/warm-up", {})
    (note,) = notes("@reboot /opt/bin/warm-up")
    assert note.startswith("1: @reboot: its job is carried over, and nothing starts it")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("61 * * * * a", 'minute "61": expected 0 to 59'),
        ("0 0 30 2 * a", "a date that never comes"),
        ("0 5 * * *", "there is no command"),
        ("@daily", "there is no command"),
        ("0~30 5 * * * a", "~ is a time at random; write one, and jitter to spread what would start at once"),
        ("@dialy a", 'there is no "@dialy"; did you mean "@daily"?'),
        ("what is this", "expected 5 fields"),
    ],
)
def test_a_line_that_is_none_is_said_and_kept_as_a_comment(line: str, why: str) -> None:
    text = f"0 1 * * * before\n\n{line}\n0 2 * * * after"
    assert list(made(text)["jobs"]) == ["before", "after"]
    (note,) = notes(text)
    assert note.startswith(f"3: not carried over: {why}")
    assert converted(text).text.endswith(f"# These lines were not carried over:\n#   {line}\n")


def test_comments_right_above_a_line_describe_it() -> None:
    text = """
# m h  dom mon dow   command
# Sell "by" date
# 0 5 * * 1 tar -zcf /var/backups/home.tgz /home/
#  check \\ twice
0 1 * * * sell

# of nothing

0 2 * * * plain
# m h dom mon dow user command
0 3 * * * headed
"""
    jobs = made(text)["jobs"]
    assert jobs["sell"]["description"] == 'Sell "by" date check \\ twice'
    assert "description" not in jobs["plain"]
    assert "description" not in jobs["headed"]


DEBIANS = """
# Edit this file to introduce tasks to be run by cron.
#
# For example, you can run a backup of all your user accounts
# at 5 a.m every week with:
# 0 5 * * 1 tar -zcf /var/backups/home.tgz /home/
#
# For more information see the manual pages of crontab(5) and cron(8)
#
# m h  dom mon dow   command
0 1 * * * first
"""
SYSTEMS = """
# Example of job definition:
# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# |  |  .---------- day of month (1 - 31)
# |  |  |  .------- month (1 - 12) OR jan,feb,mar,apr ...
# |  |  |  |  .---- day of week (0 - 6) (Sunday=0 or 7) OR sun,mon,tue,wed,thu,fri,sat
# |  |  |  |  |
# *  *  *  *  * user-name command to be executed
0 1 * * * first
"""
WIDELY_COPIED = """
# ┌───────────── minute (0 - 59)
# │ ┌───────────── hour (0 - 23)
# │ │
# * * * * * <command to execute>
0 1 * * * first
"""


@pytest.mark.parametrize("page", [DEBIANS, SYSTEMS, WIDELY_COPIED])
def test_the_page_that_explains_a_crontab_describes_no_line_of_it(page: str) -> None:
    (job,) = made(page)["jobs"].values()
    assert job == {"script": "first"}
    (job,) = made(page.replace("0 1 *", "# -------\n# Mine\n0 1 *"))["jobs"].values()
    assert job["description"] == "Mine"


def test_lines_end_where_cron_ends_them() -> None:
    text = "\ufeff# m h dom mon dow command\r\n0 1 * * * printf 'a\x0cb\u2028c'\r\n\r\n# Two\r\n0 2 * * * two\r\n"
    found = made(text)
    assert [job["script"] for job in found["jobs"].values()] == ["printf 'a\x0cb\u2028c'", "two"]
    assert found["jobs"]["two"]["description"] == "Two"
    assert notes(text) == []


def test_a_system_crontab_has_users_which_are_said_unless_it_is_one_s_own() -> None:
    text = "0 1 * * * root /opt/a\n0 2 * * * ada /opt/b\n@daily\troot\t/opt/c --x"
    found = converted(text, system=True, user="ada")
    jobs = tomllib.loads(found.text)["jobs"]
    assert {name: job["script"] for name, job in jobs.items()} == {"a": "/opt/a", "b": "/opt/b", "c": "/opt/c --x"}
    said = 'it was of the user "root"; it runs as the user of the worker'
    assert found.notes == [(1, said), (3, said)]


def test_a_user_where_none_is_expected_is_noticed() -> None:
    assert notes("0 1 * * * root /opt/a") == ['1: its command begins with "root"; if that is a user, give --system']


def test_the_dash_and_the_minutely_alias_of_other_crons() -> None:
    job, schedule = one("-*/5 * * * * quiet")
    assert (job["script"], schedule["cron"]) == ("quiet", "*/5 * * * *")
    assert one("@every_minute often")[1]["cron"] == "* * * * *"


def test_no_line_waits_for_another_one() -> None:
    assert "worker" not in made("* * * * * a\n" * 4)
    assert made("* * * * * a\n" * 9)["worker"] == {"concurrency": 9}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/opt/bin/backup.sh --full", "backup"),
        ("cd /srv/app && /usr/bin/python3 manage.py clearsessions", "manage"),
        ("/usr/bin/python3 -m app.sync --all", "app-sync"),
        ("flock -n /tmp/lock nice -n 10 /usr/bin/php /srv/artisan.php run", "artisan"),
        ("nice -n 10 ionice -c3 rsync -a /a /b", "rsync"),
        ("FOO=1 BAR='x y' sudo -u www timeout 60 certbot -q renew", "certbot"),
        ("[ -x /usr/bin/x ] && run-parts /etc/cron.daily", "cron-daily"),
        ("test -x /a || ( cd / && run-parts --report /etc/cron.hourly )", "cron-hourly"),
        ("curl -fsS 'https://example.org/ping' | jq .", "curl"),
        ("bash -c 'echo hi'", "bash"),
        ("*", "job"),
        ("last", "last"),
    ],
)
def test_jobs_are_named_by_what_they_run(command: str, name: str) -> None:
    assert name_of(command) == name


def test_names_are_unique_and_none_means_something_else() -> None:
    jobs = made("* * * * * a\n* * * * * /x/a\n* * * * * a.sh\n* * * * * last")["jobs"]
    assert list(jobs) == ["a", "a-2", "a-3", "last-2"]


def test_whatever_stands_in_a_line_the_file_says_the_same(toml: Toml) -> None:
    commands = ["echo 'a' \"b\" \\n", "echo '''three'''", 'echo """three"""', "printf '\x07\x7f'", "echo 'ä €'", "x '"]
    text = "ODD=a \"b\" 'c' \\ d\n" + "".join(f"* * * * * {command}\n" for command in commands)
    project = toml.read(converted(text).text)
    bodies = [job.body for job in project.jobs.values()]
    assert [body.text.strip("\n") for body in bodies if isinstance(body, ScriptBody)] == commands
    assert {job.env["ODD"] for job in project.jobs.values()} == {"a \"b\" 'c' \\ d"}


def test_an_empty_crontab_has_nothing_to_carry_over() -> None:
    assert converted("# nothing\n\nMAILTO=\n").jobs == 0
