# sweepkit in a container; how to run it: studies/how-to/docker.md
FROM python:3.11-slim-bookworm
WORKDIR /opt/sweepkit
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
COPY sweeps sweeps
RUN pip install --no-cache-dir -c constraints.txt '.[peft,metrics]' && useradd --uid 1000 --create-home sweep
# With --user the id may have no entry in /etc/passwd: home and name are then these.
ENV HOME=/home/sweep USER=sweep
RUN chmod 1777 /home/sweep
USER sweep
WORKDIR /project
ENTRYPOINT ["sweep"]
