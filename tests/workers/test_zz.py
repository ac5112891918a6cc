import cProfile, pstats, time, json
from tests.workers.test_client import *
from admin_api.bulk import _checked
from workers.requests import Sender
def test_it(client, model):
    lines=[json.dumps({"feature":TEXT,"input":{"sign":"leo","language":"en","date":"2026-01-31"},"user_id":f"u{n}"}).encode() for n in range(30000)]
    def go():
        with client.bulk(Sender()) as bulk:
            t=[0,0]; b=time.perf_counter()
            for l in lines: bulk.add(_checked(l).request())
            m=time.perf_counter(); bulk.commit(); e=time.perf_counter()
        print("\nadd us/row",(m-b)/len(lines)*1e6,"commit us/row",(e-m)/len(lines)*1e6)
    go()
    with client.bulk(Sender()) as bulk:
        for l in lines[:4999]: bulk.add(_checked(l).request())
        rows=list(bulk._waiting)*6; bulk._waiting=rows
        b=time.perf_counter(); bulk._copy(); print("copy rows/s",len(rows)/(time.perf_counter()-b))
    p=cProfile.Profile(); p.enable(); go(); p.disable()
    pstats.Stats(p).sort_stats("tottime").print_stats(28)
