"""An nginx of its own, on HTTP and on HTTPS with each version of TLS."""

import contextlib
import os

from .processes import background, free_port, program

FILE_SIZE = 5_000_000
SETTINGS = """
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log stderr;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    client_max_body_size 100m;
    keepalive_timeout 5s;
    root {home}/files;
    server {{
        listen 127.0.0.1:{ports[0]};
        location /upload/ {{ dav_methods PUT DELETE; }}
        location /moved {{ return 302 /small.txt; }}
        location /reset {{ return 444; }}
        location /slow/ {{ alias {home}/files/; limit_rate 4m; }}
        location /echo {{ return 200 "$request_method $http_x_name $arg_question\\n"; }}
    }}
    ssl_certificate {certificates.server};
    ssl_certificate_key {certificates.server};
    ssl_client_certificate {certificates.authority};
    ssl_verify_client optional;
    ssl_session_cache shared:sessions:1m;
    server {{
        listen 127.0.0.1:{ports[1]} ssl;
        ssl_protocols TLSv1.2;
        location /echo {{ return 200 "$ssl_protocol $ssl_client_verify $ssl_server_name\\n"; }}
    }}
    server {{
        listen 127.0.0.1:{ports[2]} ssl;
        ssl_protocols TLSv1.3;
        location /echo {{ return 200 "$ssl_protocol $ssl_client_verify $ssl_server_name\\n"; }}
    }}
}}
"""


@contextlib.contextmanager
def serve(directory, certificates):
    nginx = program("nginx", "nginx")
    home = os.path.join(directory, "nginx")
    os.makedirs(os.path.join(home, "files", "upload"))
    with open(os.path.join(home, "files", "small.txt"), "w") as file:
        file.write("a small page\n")
    with open(os.path.join(home, "files", "large"), "wb") as file:
        file.write(bytes(range(250)) * (FILE_SIZE // 250))
    ports = [free_port() for _ in range(3)]
    settings = os.path.join(home, "nginx.conf")
    with open(settings, "w") as file:
        file.write(
            SETTINGS.format(
                # Its default account could not read a private temporary directory.
                user="user root;" if os.geteuid() == 0 else "",
                home=home,
                ports=ports,
                certificates=certificates,
            )
        )
    command = [nginx, "-p", home, "-c", settings, "-e", "stderr"]
    with background(command, ports[0], log=os.path.join(directory, "nginx.log")):
        yield {
            "NGINX_URL": f"http://127.0.0.1:{ports[0]}",
            "NGINX_TLS_1_2_URL": f"https://localhost:{ports[1]}",
            "NGINX_TLS_1_3_URL": f"https://localhost:{ports[2]}",
        }
