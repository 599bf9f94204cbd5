# One image for all roles: slipknot controller | proxy | node. The target "etcd" is the store of a cluster
# with several controllers.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
# For the modules that are compiled. Python's headers come with it, but not with a Python of Debian's.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && { [ -e "$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] \
      || apt-get install --yes --no-install-recommends python3-dev; } \
 && rm -rf /var/lib/apt/lists/*
# What changes seldom comes first: the libraries, in exactly the versions that are tested.
COPY deploy/constraints.txt pyproject.toml ./
RUN python -m venv /opt/slipknot \
 && python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
      print(*p["dependencies"], *p["optional-dependencies"]["tls"], sep="\n")' > requirements.txt \
 && /opt/slipknot/bin/pip install -r requirements.txt
COPY LICENSE README.md hatch_build.py ./
COPY proto proto
COPY sdk sdk
COPY proxy proxy
COPY replica replica
COPY controller controller
RUN /opt/slipknot/bin/pip install --no-deps . \
 && /opt/slipknot/bin/pip check \
 && /opt/slipknot/bin/pip uninstall --yes pip setuptools

FROM python:${PYTHON}-slim-bookworm AS etcd
RUN apt-get update \
 && apt-get install --yes --no-install-recommends etcd-server etcd-client \
 && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner=etcd --group=etcd --mode=0700 /var/lib/etcd
USER etcd
# etcd 3.4 starts on arm64 only when it is told to.
ENV ETCDCTL_API=3 ETCD_UNSUPPORTED_ARCH=arm64
ENTRYPOINT ["etcd"]

FROM python:${PYTHON}-slim-bookworm AS slipknot
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin slipknot \
 && install --directory --owner=slipknot --group=slipknot --mode=0700 \
      /var/lib/slipknot /var/lib/slipknot/state \
      /run/slipknot /run/slipknot/secrets /run/slipknot/authority /run/slipknot/member /run/slipknot/callers
COPY --from=build /opt/slipknot /opt/slipknot
ENV PATH=/opt/slipknot/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY examples examples
USER slipknot
ENTRYPOINT ["slipknot"]
CMD ["--help"]
