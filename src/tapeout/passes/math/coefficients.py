"""Coefficients of the polynomials in the formulas, highest power first.

Minimax fits (Lawson iteration in 40 digits), coefficients rounded to the type one after the other, lowest power first;
from ERFCINV_FAR on interpolations at Chebyshev points (in 50 digits), each coefficient rounded.
"""

from tapeout.numerics.dtypes import DType

Table = dict[DType, tuple[float, ...]]
"""A polynomial for each type."""


def _read(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


EXP = {  # (e**r - 1 - r) / r**2, |r| <= ln(2) / 2
    DType.F32: _read(
        """
        0x1.6d50b8p-10 0x1.120ad8p-7 0x1.5554e6p-5 0x1.5554dep-3 0x1.000000p-1
        """
    ),
    DType.F64: _read(
        """
        0x1.1f7a16cf69d7ap-29 0x1.af4eebadd4b66p-26 0x1.27e4d7793c2d8p-22 0x1.71de019db3455p-19
        0x1.a01a01a84c324p-16 0x1.a01a01ac22550p-13 0x1.6c16c16c15fa7p-10 0x1.111111111004bp-7
        0x1.5555555555556p-5 0x1.5555555555557p-3 0x1.0000000000000p-1
        """
    ),
}
ATANH = {  # (2 atanh(s) / s - 2) / z, z = s**2 <= 0.0295: what logarithms are made of
    DType.F32: _read(
        """
        0x1.99fa90p-3 0x1.25ea64p-2 0x1.99955ep-2 0x1.555556p-1
        """
    ),
    DType.F64: _read(
        """
        0x1.2f8a5768f4939p-3 0x1.0c1ac404d0fbbp-3 0x1.3b41964cb88bcp-3 0x1.745c3ba4d930ep-3
        0x1.c71c73ea471c1p-3 0x1.249249234d131p-2 0x1.999999999a2a4p-2 0x1.5555555555555p-1
        """
    ),
}
SINE = {  # (sin(a) / a - 1) / z, z = a**2, |a| <= pi / 4
    DType.F64: _read(
        """
        -0x1.9dc024334f7a1p-41 0x1.610517675d093p-33 -0x1.ae6424f27bd5fp-26 0x1.71de3a2e278b4p-19
        -0x1.a01a019ffa95cp-13 0x1.111111111105bp-7 -0x1.5555555555555p-3
        """
    ),
}
COSINE = {  # (cos(a) - 1 + z / 2) / z**2, z = a**2, |a| <= pi / 4
    DType.F64: _read(
        """
        -0x1.8fb175e8010e4p-37 0x1.1ee9f1c4d6a8ep-29 -0x1.27e4f8133e2bfp-22 0x1.a01a019cbfea6p-16
        -0x1.6c16c16c15222p-10 0x1.555555555554cp-5
        """
    ),
}
TANH = {  # (tanh(x) / x - 1) / z, z = x**2 <= 0.3026
    DType.F32: _read(
        """
        -0x1.9c9caep-8 0x1.59836cp-6 -0x1.b9320ap-5 0x1.110d6ap-3 -0x1.55554cp-2
        """
    ),
}
ASIN = {  # (asin(x) / x - 1) / z, z = x**2 <= 0.25
    DType.F32: _read(
        """
        0x1.59e718p-5 0x1.8b9a44p-6 0x1.748c44p-5 0x1.33015ep-4 0x1.5555cap-3
        """
    ),
    DType.F64: _read(
        """
        0x1.0bed644418e9bp-5 -0x1.5a15ab3643681p-6 0x1.6519da8c7e32bp-6 0x1.e106656b0c454p-9
        0x1.6190cae1a7a60p-7 0x1.757663bd14629p-7 0x1.ca216ae776442p-7 0x1.1c49dc550024fp-6
        0x1.6e8bdffe53ff9p-6 0x1.f1c71a8ad959ep-6 0x1.6db6db722cdc4p-5 0x1.333333332df0cp-4
        0x1.5555555555578p-3
        """
    ),
}
ATAN = {  # (atan(x) / x - 1) / z, z = x**2 <= 1
    DType.F32: _read(
        """
        0x1.86321ap-9 -0x1.0fd10ap-6 0x1.64e8bcp-5 -0x1.368c8ep-4 0x1.b56e6cp-4 -0x1.231c12p-3 0x1.997af0p-3
        -0x1.5554e6p-2
        """
    ),
    DType.F64: _read(
        """
        0x1.c4671b05a49a8p-17 -0x1.447df564b1746p-13 0x1.ba1043966db7ep-11 -0x1.7e8660ee7cb75p-9
        0x1.dbe4c5d949860p-8 -0x1.ca80c34f9ef91p-7 0x1.69cc1728e1291p-6 -0x1.eb3ed674dd90dp-6
        0x1.2c94c17bd197bp-5 -0x1.59d6415b6a784p-5 0x1.82ee05268c419p-5 -0x1.ae64199eb6dd0p-5
        0x1.e1bcebc368baap-5 -0x1.110e6c8b14959p-4 0x1.3b1369f68c709p-4 -0x1.745d11f869e07p-4
        0x1.c71c718402f9cp-4 -0x1.2492492391c0ep-3 0x1.9999999995adbp-3 -0x1.555555555552ap-2
        """
    ),
}
ERF = {  # erf(x) / x - 1 in z = x**2 <= 0.86 (f64: 0.25)
    DType.F32: _read(
        """
        0x1.5cf736p-14 -0x1.aa377cp-11 0x1.54c3f6p-8 -0x1.b80d9ep-6 0x1.ce2df2p-4 -0x1.812742p-2
        0x1.06eba8p-3
        """
    ),
    DType.F64: _read(
        """
        0x1.152cca0a7db98p-17 -0x1.602fa6a57d654p-17 0x1.df3ecf4fed0dbp-18 -0x1.158021303db18p-16
        0x1.fad6052df919ep-14 -0x1.c031e272f8096p-11 0x1.565bd5df42ea8p-8 -0x1.b82ce327adfe0p-6
        0x1.ce2f21a05c3e6p-4 -0x1.812746b037aa4p-2 0x1.06eba8214db69p-3
        """
    ),
}
LOG_ERFC = {  # -log(erfc(t)), 0.92 <= t <= 4, weighted by erfc(t)
    DType.F32: _read(
        """
        0x1.d88608p-22 0x1.02a896p-16 -0x1.a6b118p-12 0x1.0b027ap-8 -0x1.988f0ep-6 0x1.baa086p-4
        0x1.445ab0p-1 0x1.2123b0p+0 -0x1.56ce7ap-13
        """
    ),
}
ERFCX = {  # e**(x**2) erfc(x) (1 + 2 x) - 1 in q = (x - 4) / (x + 4), x >= 0
    DType.F32: _read(
        """
        -0x1.6e9048p-17 0x1.f4538ap-14 -0x1.cab72ap-13 -0x1.7c70c4p-11 0x1.4b24b4p-8 -0x1.0999f2p-6
        0x1.305bdep-5 -0x1.0faf4ep-4 0x1.7ff376p-4 -0x1.9dda7ap-4 0x1.16ec18p-4 0x1.f7f4bap-7 -0x1.1df1a8p-3
        0x1.dd2c8cp-3
        """
    ),
    DType.F64: _read(
        """
        0x1.df3e2156ec247p-33 -0x1.c7bd776e71881p-33 -0x1.d8a382eb71113p-30 0x1.3132da12392a3p-29
        0x1.00737dc33ff98p-27 -0x1.10c0aa3a23401p-26 -0x1.e057c6e814d73p-26 0x1.e0b8c9abc989dp-24
        0x1.701d159333c40p-24 -0x1.bbdc45ba16f89p-21 0x1.32d773e2be0f4p-22 0x1.7f38879c5e4c5p-18
        -0x1.786a7ebdd20a8p-17 -0x1.995b10a984c27p-16 0x1.3bdfaea765fcdp-13 -0x1.a1df135124b27p-13
        -0x1.8d4a91962a953p-11 0x1.49c672681d94cp-8 -0x1.0962388f3c97bp-6 0x1.3079edf6fe1bcp-5
        -0x1.0fb06dfe0d11dp-4 0x1.7fee004e0de5bp-4 -0x1.9ddb23c3ec001p-4 0x1.16ecefcfa55eep-4
        0x1.f7f5df66fdf1ep-7 -0x1.1df1ad154a291p-3 0x1.dd2c8b74febf6p-3
        """
    ),
}
LGAMMA_NEAR_1 = {  # lgamma(1 + z) / z, |z| <= 0.5
    DType.F32: _read(
        """
        -0x1.265332p-6 -0x1.c895f4p-3 0x1.9866a6p-3 -0x1.16f5a0p-6 0x1.d62334p-5 -0x1.064866p-3
        0x1.0f8a2cp-3 -0x1.232dccp-3 0x1.5a1c32p-3 -0x1.a8ed76p-3 0x1.151810p-2 -0x1.9a4cd2p-2 0x1.a51a60p-1
        -0x1.2788d0p-1
        """
    ),
    DType.F64: _read(
        """
        0x1.d81466a876a13p+0 0x1.cc79bddea767bp-2 -0x1.e170d51a29cabp+1 -0x1.25e926342632cp-1
        0x1.9c7b0b6c04635p+1 0x1.e5f895f1af49bp-2 -0x1.b9198bbf41fbap+0 -0x1.31a9cf1871bedp-3
        0x1.0f333c59d4017p-1 0x1.9f66411fb9a2cp-4 -0x1.77948a27adb3dp-3 0x1.3baabe347c85fp-5
        -0x1.e62d2b4b3d989p-6 0x1.d4d55393860c0p-5 -0x1.f8ccd4cbda951p-5 0x1.fe92a5e56982fp-5
        -0x1.101297ca1d09dp-4 0x1.24a4853a3a41bp-4 -0x1.3b2d77092cc0bp-4 0x1.556a21748c895p-4
        -0x1.748b867973b21p-4 0x1.9a01e9cf97763p-4 -0x1.c80675382f80fp-4 0x1.010b369db3b89p-3
        -0x1.2703a1d2a25e3p-3 0x1.5b40cb10470d0p-3 -0x1.a8b9c17abd3f1p-3 0x1.151322ac7d541p-2
        -0x1.9a4d55beab232p-2 0x1.a51a6625307d4p-1 -0x1.2788cfc6fb619p-1
        """
    ),
}
LGAMMA_NEAR_2 = {  # lgamma(2 + z) / z, -0.5 <= z <= 1
    DType.F32: _read(
        """
        -0x1.8c1bdep-15 0x1.4bbb34p-13 -0x1.141f94p-12 0x1.f8e28cp-12 -0x1.3160a2p-10 0x1.7b6394p-9
        -0x1.e46da4p-8 0x1.5131cep-6 -0x1.13df82p-4 0x1.4a34ccp-2 0x1.b0ee60p-2
        """
    ),
    DType.F64: _read(
        """
        -0x1.423726fbc82c2p-27 0x1.d3d0ed5ad735fp-25 -0x1.ff55a469fc01cp-24 0x1.8e299d0833dd2p-24
        0x1.3c27cfbf87eecp-24 -0x1.f140d5ef66f99p-23 0x1.2f1983bf07746p-22 -0x1.ba773feace118p-22
        0x1.e73c9294e91a6p-21 -0x1.115bebb8e9b4fp-19 0x1.267e63c9c2e6ap-18 -0x1.3cdb3a08643a5p-17
        0x1.580542c2c3b00p-16 -0x1.78dc8ccbbb5bap-15 0x1.a127dbf888e3bp-14 -0x1.d3fd59d97c388p-13
        0x1.0b36af5458009p-11 -0x1.38ac5c118c2f8p-10 0x1.7add6eadcbfe6p-9 -0x1.e404fc21c37d7p-8
        0x1.51322ac7d8688p-6 -0x1.13e001a557564p-4 0x1.4a34cc4a60fa6p-2 0x1.b0ee6072093cep-2
        """
    ),
}
LGAMMA_NEAR_5 = {  # lgamma(5 + z), -2 <= z <= 3
    DType.F32: _read(
        """
        -0x1.530192p-30 0x1.f3b4cep-27 -0x1.714cd2p-24 0x1.d9109ap-22 -0x1.5c65b6p-19 0x1.1c24d6p-16
        -0x1.ebaecap-14 0x1.d43458p-11 -0x1.0a755cp-7 0x1.c544cep-4 0x1.8190eep+0 0x1.96ca78p+1
        """
    ),
    DType.F64: _read(
        """
        0x1.99a7bf1739328p-64 -0x1.704f42fb6db52p-60 0x1.653a2e36b424bp-58 0x1.c9da07b6bb7d7p-57
        -0x1.27e96c1a4390dp-53 0x1.01b18763550d7p-53 0x1.68cd503178d6cp-50 -0x1.a0c2fd3044d24p-49
        -0x1.777d0285b277ap-48 0x1.5e92cceeb471fp-46 0x1.d8c150de4d958p-46 -0x1.999b115145c39p-43
        0x1.fbbd5991ca9e5p-42 -0x1.20b1e2fda41e8p-39 0x1.bac2b8f13a27ep-37 -0x1.35c89ae60116cp-34
        0x1.aa45663f566efp-32 -0x1.2a99343f5bb16p-29 0x1.a993e63143306p-27 -0x1.352d0a2739f8ap-24
        0x1.cc95ab4ca21dep-22 -0x1.629e9d407b66cp-19 0x1.1db6c0b892ee1p-16 -0x1.eb8b4e5e1a2fcp-14
        0x1.d41919c5ef42ap-11 -0x1.0a74fd5d4a7fbp-7 0x1.c544f845f5900p-4 0x1.8190ed71d7a46p+0
        0x1.96ca77c922cf9p+1
        """
    ),
}
ERFINV_CENTRAL = {  # erfinv(x) / x in w - 2.5 (f64: w - 3.125), w = -log(1 - x**2) up to 5 (6.25)
    DType.F32: _read(
        """
        0x1.e8679cp-26 0x1.7110b2p-22 -0x1.d97220p-19 -0x1.270978p-18 0x1.ca6dc8p-13 -0x1.48a704p-10
        -0x1.11ca1cp-8 0x1.f91ec6p-3 0x1.805c5ep+0
        """
    ),
    DType.F64: _read(
        """
        0x1.fb3d0023430eep-69 -0x1.267bd439b922fp-70 -0x1.a4cbf385f9212p-62 0x1.513760b52501cp-60
        0x1.2230451ffccfap-56 -0x1.2bbf8764309f7p-53 -0x1.8783d73172fc8p-55 0x1.db27ef4dbee62p-48
        -0x1.683afd24f0e0ap-45 -0x1.6d891f010f4b4p-44 0x1.7231571cbe70fp-39 -0x1.c896491cf1cf3p-37
        -0x1.dc3e07507ab54p-35 0x1.20f4eccf83865p-30 -0x1.1a9eb5e74fc46p-28 -0x1.f36ce57d79171p-26
        0x1.c6b4f8a89781bp-22 -0x1.6e8a53ecf4074p-20 -0x1.d1d1f7cad9161p-17 0x1.879c2a20d4e09p-13
        -0x1.8457694834604p-11 -0x1.8b6c33114edf0p-8 0x1.ebd80d9b13df8p-3 0x1.a755e7c99ae86p+0
        """
    ),
}
ERFINV_MIDDLE = {  # erfinv(x) / x in sqrt(w) - 3.25, from there to w = 16
    DType.F64: _read(
        """
        0x1.73efa1dd65046p-30 0x1.86efb4a28b7e4p-24 -0x1.251581f5fdabdp-22 0x1.2e1cb795f4c44p-26
        0x1.92beefeca9e31p-20 -0x1.0d5239f49c3efp-18 0x1.8891171ca3117p-19 0x1.a296e6e3b514bp-17
        -0x1.8cf02ac39db5dp-15 0x1.1e686ceccb7acp-14 0x1.932d43f04355ep-16 -0x1.7448aa15a6a4ep-12
        0x1.f3cc5542f6528p-11 -0x1.ba9241297a851p-10 0x1.468eeca6e8289p-9 -0x1.ebadabb8cccf0p-9
        0x1.5ffcfe5b70617p-8 0x1.0158a6d641d41p+0 0x1.8abcc380d5a48p+1
        """
    ),
}
ERFINV_TAIL = {  # erfinv(x) / x in sqrt(w) - 3 (f64: sqrt(w) - 5), beyond
    DType.F32: _read(
        """
        -0x1.2fea20p-15 0x1.6219d2p-13 -0x1.14e996p-12 -0x1.1d0906p-13 0x1.801838p-10 -0x1.d239a2p-9
        0x1.74f74ap-8 -0x1.f506eap-8 0x1.357d02p-7 0x1.006dccp+0 0x1.6a9efcp+1
        """
    ),
    DType.F64: _read(
        """
        -0x1.85c2d70ac1639p-36 0x1.654acdebb013fp-35 0x1.5a9a9ecfd3fb9p-34 -0x1.d6620f8ea78f5p-32
        0x1.643049aabeae9p-30 -0x1.df7bebfd609f6p-29 0x1.0d900dcbf5b5ep-27 -0x1.05cc83349ddc9p-26
        0x1.f240821736eb3p-26 -0x1.22306864d3bb8p-24 0x1.ebe6de4b7382dp-23 -0x1.0a9047f0c9c29p-20
        0x1.2fbcf67d8744ap-18 -0x1.4a34902ee1924p-16 0x1.3ebf4f088a885p-14 -0x1.c2f36aa15f381p-13
        -0x1.22ea5df21d839p-13 0x1.02a30d1fba10bp+0 0x1.3664ddd1ad7fbp+2
        """
    ),
}
ERFCINV_FAR = {  # erfcinv(x) / (1 - x) / r in 1 / r - 0.171875 (f64: 0.1015625), r**2 = -log(x (2 - x)), r >= 4 (6)
    DType.F32: _read(
        """
        -0x1.9d811cp+6 0x1.5a7fa8p+5 -0x1.26528ap+3 0x1.7f663ep+1 -0x1.8edf6ap+0 0x1.d3a55ep-1
        -0x1.66d52cp-4 -0x1.96f2dcp-3 0x1.f38470p-1
        """
    ),
    DType.F64: _read(
        """
        0x1.62c62b6eea8f6p+66 -0x1.3e45d79f1b00dp+63 -0x1.bb0ed5397c383p+60 0x1.8b7c5f7a820efp+57
        0x1.3595254539a48p+54 -0x1.1538e84f7df37p+51 -0x1.99789d2f3b7cdp+46 0x1.69ff2da57a0afp+43
        0x1.3fabb47c9da36p+39 -0x1.25c19b02b244cp+36 0x1.96f401c77d279p+30 -0x1.c37968b4fbcd7p+27
        0x1.88bd4ecd2abdfp+25 -0x1.9c0c6ab3aabaap+22 0x1.ac6540fcbef92p+19 -0x1.df083adb08963p+16
        0x1.16d059652f65fp+14 -0x1.53fe77ce00ea1p+11 0x1.ba38327557e7fp+8 -0x1.38aaf677e069ep+6
        0x1.f13b1e6c5a84fp+3 -0x1.050e255661be3p+2 0x1.9cb50291e3d0ap+0 -0x1.5e67631e38de9p-2
        -0x1.5c812ac856ab5p-3 0x1.fa4373ae2f905p-1
        """
    ),
}
J0_NEAR = {  # J0(x) in x**2 - 8, |x| <= 4
    DType.F32: _read(
        """
        0x1.0e6872p-47 -0x1.06e60cp-39 0x1.830ea6p-32 -0x1.9de976p-25 0x1.2cb0cep-18 -0x1.0c5a8ap-12
        0x1.eb0968p-8 -0x1.21c582p-4 -0x1.9287cep-3
        """
    ),
    DType.F64: _read(
        """
        0x1.16577180101dep-101 -0x1.a626caefa4d09p-92 0x1.137f93d99e512p-82 -0x1.31eae23a5c306p-73
        0x1.1cbf9d3e328ecp-64 -0x1.b4b436d1e8688p-56 0x1.0e1854dc3c4f4p-47 -0x1.066b29e58c78bp-39
        0x1.830ec38373cfdp-32 -0x1.9de9d1840dc3cp-25 0x1.2cb0ce3a76f7cp-18 -0x1.0c5a89dc25e47p-12
        0x1.eb0968d968a52p-8 -0x1.21c581744c39cp-4 -0x1.9287ceca38d6bp-3
        """
    ),
}
J1_NEAR = {  # J1(x) / x, likewise
    DType.F32: _read(
        """
        0x1.ebc114p-52 -0x1.0e7c7cp-43 0x1.cb3b74p-36 -0x1.224aeep-28 0x1.02b222p-21 -0x1.2cb0cep-15
        0x1.9287cep-10 -0x1.eb0968p-6 0x1.21c582p-3
        """
    ),
    DType.F64: _read(
        """
        0x1.2b66e523646d3p-106 -0x1.e71dbd1dffe32p-97 0x1.56e11c73a4158p-87 -0x1.9d3f5d5551b30p-78
        0x1.a4a2f979c2424p-69 -0x1.63ef848dc74c1p-60 0x1.eb4abdabf5375p-52 -0x1.0e1854dc3c4ebp-43
        0x1.cb3b8951b5d71p-36 -0x1.224b12a296dbep-28 0x1.02b222f2889a5p-21 -0x1.2cb0ce3a76f7cp-15
        0x1.9287ceca38d6bp-10 -0x1.eb0968d968a52p-6 0x1.21c581744c39cp-3
        """
    ),
}
Y0_NEAR = {  # Y0(x) - 2 / pi log(x) J0(x), likewise
    DType.F32: _read(
        """
        -0x1.e37a78p-47 0x1.bffbeep-39 -0x1.36d3c8p-31 0x1.343dcap-24 -0x1.940806p-18 0x1.340314p-12
        -0x1.9d62c6p-8 0x1.a1331ap-8 0x1.1de480p-1
        """
    ),
    DType.F64: _read(
        """
        -0x1.298fd7e6ec2ffp-100 0x1.b9864dccf6014p-91 -0x1.193e7c7047815p-81 0x1.2ff9d04485b09p-72
        -0x1.1273be07afaafp-63 0x1.96817b9db7d76p-55 -0x1.e2e0081a47bcbp-47 0x1.bf172600a64ccp-39
        -0x1.36d3e4868d938p-31 0x1.343e1fcd280ebp-24 -0x1.9408055c44088p-18 0x1.3403132dcde10p-12
        -0x1.9d62c655f0441p-8 0x1.a1331a69b9ad2p-8 0x1.1de47f3d61dbbp-1
        """
    ),
}
Y1_NEAR = {  # (Y1(x) - 2 / pi (log(x) J1(x) - 1 / x)) / x, likewise
    DType.F32: _read(
        """
        -0x1.c0e750p-51 0x1.d897bep-43 -0x1.7c6b02p-35 0x1.c22a74p-28 -0x1.6fd460p-21 0x1.79eb3ep-15
        -0x1.9cc7b4p-10 0x1.369db0p-6 0x1.51dd34p-4
        """
    ),
    DType.F64: _read(
        """
        -0x1.435523601c756p-105 0x1.019549298eee4p-95 -0x1.625e289977f65p-86 0x1.a051a8f717f99p-77
        -0x1.9bcb4a447142fp-68 0x1.514dc65e2732bp-59 -0x1.c07376666ad40p-51 0x1.d7d9ec1465732p-43
        -0x1.7c6b1708d3b6fp-35 0x1.c22abaa98d925p-28 -0x1.6fd45fc6380fap-21 0x1.79eb3dc1c8d58p-15
        -0x1.9cc7b4993ede7p-10 0x1.369daf19b82a4p-6 0x1.51dd34f6a80c0p-4
        """
    ),
}
J0_MIDDLE = {  # J0(x) in x - 6, 4 <= x <= 8
    DType.F32: _read(
        """
        -0x1.6278e8p-29 -0x1.b2274ap-25 0x1.781492p-22 0x1.5d6d70p-18 -0x1.f7eceep-16 -0x1.40ca20p-12
        0x1.96ad48p-10 0x1.2ff7d2p-7 -0x1.427fa0p-5 -0x1.92f67ep-4 0x1.1b5304p-2 0x1.348580p-3
        """
    ),
    DType.F64: _read(
        """
        -0x1.c3f1d82e1ec83p-56 0x1.eb80792d4cf8ep-53 0x1.27e3dec93d49ep-47 -0x1.2d3dc299b9867p-44
        -0x1.2333f267198bfp-39 0x1.13397055f4339p-36 0x1.b37de771cb7bcp-32 -0x1.7b768ebaa9230p-29
        -0x1.d96b40a4d52eep-25 0x1.78f324e2e3425p-22 0x1.5eca549e0b17cp-18 -0x1.f7f41b785fa1fp-16
        -0x1.40d55deca1250p-12 0x1.96ad62dbc113ep-10 0x1.2ff8250ad6ea2p-7 -0x1.427fa0b72ebeep-5
        -0x1.92f6814c2d227p-4 0x1.1b530367f4bbep-2 0x1.3485802986392p-3
        """
    ),
}
J1_MIDDLE = {  # J1(x), likewise
    DType.F32: _read(
        """
        -0x1.2f86fep-28 0x1.e159bep-26 0x1.271580p-21 -0x1.a6aa34p-19 -0x1.5ec3b4p-15 0x1.b8ea04p-13
        0x1.e13fdcp-10 -0x1.fc5864p-8 -0x1.2ff824p-5 0x1.e3bf70p-4 0x1.92f682p-3 -0x1.1b5304p-2
        """
    ),
    DType.F64: _read(
        """
        0x1.9447a2377ab13p-57 0x1.f9b8bf3fd802bp-52 -0x1.1289871d0ae54p-48 -0x1.27ce236f8bb4dp-43
        0x1.1ac8b4b258257p-40 0x1.fd99caeea3128p-36 -0x1.bf4025ba72505p-33 -0x1.469e69b83bd38p-28
        0x1.04e1884f222d1p-25 0x1.27e30857d6ae7p-21 -0x1.a811899f0f60dp-19 -0x1.5eca549dc7cf7p-15
        0x1.b8f59809af14cp-13 0x1.e1400ce2f07d7p-10 -0x1.fc58bb92b25e2p-8 -0x1.2ff8250ad6e79p-5
        0x1.e3bf7112c6209p-4 0x1.92f6814c2d226p-3 -0x1.1b530367f4bbfp-2
        """
    ),
}
Y0_MIDDLE = {  # Y0(x), likewise
    DType.F32: _read(
        """
        -0x1.2adcb0p-28 0x1.eff5a2p-26 0x1.31ecc6p-21 -0x1.cfae68p-19 -0x1.655566p-15 0x1.e38390p-13
        0x1.e9efc2p-10 -0x1.1faddcp-7 -0x1.2340bep-5 0x1.093e30p-3 0x1.666bd2p-3 -0x1.271c82p-2
        """
    ),
    DType.F64: _read(
        """
        0x1.5ef49f93c9195p-59 -0x1.12c39c673329cp-56 0x1.6d88ba114a0d1p-55 -0x1.1c17a2350e431p-52
        0x1.770d7a38fdeddp-49 -0x1.3a401c29f0012p-46 -0x1.d582ebf3cf54fp-45 0x1.2c591a50a3115p-41
        0x1.22a658fb4fdafp-35 -0x1.04c21f9e33f76p-32 -0x1.45e5481a4f4a8p-28 0x1.101a564da1a25p-25
        0x1.32df9c3f0da11p-21 -0x1.d15f027b65a50p-19 -0x1.655d4319f1231p-15 0x1.e3918f788fba8p-13
        0x1.e9effcc109057p-10 -0x1.1fae10370f588p-7 -0x1.2340be04f1d69p-5 0x1.093e304981a89p-3
        0x1.666bd2c9daf3ep-3 -0x1.271c81da53e77p-2
        """
    ),
}
Y1_MIDDLE = {  # Y1(x), likewise
    DType.F32: _read(
        """
        0x1.7eb8bap-29 0x1.94335ap-25 -0x1.53e144p-22 -0x1.57b126p-18 0x1.d15d24p-16 0x1.38a4d4p-12
        -0x1.6aad24p-10 -0x1.32359ep-7 0x1.1fae10p-5 0x1.b4e118p-4 -0x1.093e30p-2 -0x1.666bd2p-3
        """
    ),
    DType.F64: _read(
        """
        0x1.45a87e897be2cp-57 -0x1.e770240cc03bcp-55 0x1.18f1560aa9e8fp-53 -0x1.924824a36a99cp-51
        0x1.abbf751ae2e70p-48 -0x1.927ca982b6162p-45 0x1.3236c4581389ap-42 0x1.b946382f40136p-41
        -0x1.0613251de831ep-37 -0x1.d84fcb3415ea1p-32 0x1.8721d9fe46e1cp-29 0x1.c01b4802c5599p-25
        -0x1.5420e8d64c82ap-22 -0x1.593b8fd0a620cp-18 0x1.d15f0273193e8p-16 0x1.38b19ab6c9220p-12
        -0x1.6aad2b9a5f6d3p-10 -0x1.3235fdf8a5d65p-7 0x1.1fae10370f47cp-5 0x1.b4e11d076ac28p-4
        -0x1.093e304981a87p-2 -0x1.666bd2c9daf3ep-3
        """
    ),
}
P0 = {  # Hankel's P of order 0 in (8 / x)**2 - 0.5, x >= 8
    DType.F32: _read(
        """
        -0x1.57f926p-25 0x1.c03780p-23 -0x1.b8caa2p-20 0x1.9bde70p-16 -0x1.193600p-10 0x1.ffb8dep-1
        """
    ),
    DType.F64: _read(
        """
        0x1.a7b9694769842p-35 -0x1.047589f7053ddp-34 0x1.bb7a2aca593bbp-36 -0x1.69ea19bd0e0e3p-35
        0x1.9542d15c8023cp-34 -0x1.4ec56f0f7c419p-33 0x1.27eb5ec560053p-32 -0x1.29370e92590fbp-31
        0x1.4ff43f3a3b25ap-30 -0x1.b5cc0a14f8f46p-29 0x1.54df0ce0b3c60p-27 -0x1.4d2f3066d9562p-25
        0x1.b7ef11d50d123p-23 -0x1.b8d2d6f7a2846p-20 0x1.9be00160e823fp-16 -0x1.193600c1deb24p-10
        0x1.ffb8dd328503dp-1
        """
    ),
}
Q0 = {  # Hankel's Q x / 8 of order 0, likewise
    DType.F32: _read(
        """
        -0x1.8e03d0p-24 0x1.34c262p-21 -0x1.8c8212p-18 0x1.1e9a28p-13 -0x1.fdb5c0p-7
        """
    ),
    DType.F64: _read(
        """
        -0x1.5c372909e604fp-34 0x1.c9af9c3d116f0p-34 -0x1.36db567656e35p-34 0x1.03a67054839f2p-33
        -0x1.0668091946277p-32 0x1.e92000e832cd3p-32 -0x1.f921a9be4b876p-31 0x1.2b95c69e41f96p-29
        -0x1.a08311da2b2a8p-28 0x1.61a5760762203p-26 -0x1.858d1bacfdbf7p-24 0x1.3135a899d41e7p-21
        -0x1.8c84352849033p-18 0x1.1e9a6138feebbp-13 -0x1.fdb5c0b2f3d5bp-7
        """
    ),
}
P1 = {  # P of order 1, likewise
    DType.F32: _read(
        """
        0x1.81b460p-25 -0x1.0143a8p-22 0x1.0771aap-19 -0x1.0b1464p-15 0x1.d73b8ep-10 0x1.003b72p+0
        """
    ),
    DType.F64: _read(
        """
        -0x1.bd6fe4fb1ba12p-35 0x1.125263266053fp-34 -0x1.d7e736208fd1dp-36 0x1.81a25fde03778p-35
        -0x1.af1550a2ce418p-34 0x1.655ef6af8df4dp-33 -0x1.3d5916359e25ap-32 0x1.4054ae55a302ep-31
        -0x1.6c57ffed6724ep-30 0x1.dea34d76e5748p-29 -0x1.78ba263317e77p-27 0x1.75eaf634be6f0p-25
        -0x1.f96170eb105dcp-23 0x1.07762641dd462p-19 -0x1.0b1541bfc38b8p-15 0x1.d73b8ea3c1238p-10
        0x1.003b716033732p+0
        """
    ),
}
Q1 = {  # Q x / 8 of order 1, likewise
    DType.F32: _read(
        """
        0x1.c278e0p-24 -0x1.6814a8p-21 0x1.e8ddb2p-18 -0x1.938d62p-13 0x1.7f3238p-5
        """
    ),
    DType.F64: _read(
        """
        0x1.6f044f2b7f8d2p-34 -0x1.e37e7306a7240p-34 0x1.4af02165d68cfp-34 -0x1.1528cc57af727p-33
        0x1.1882a11595d42p-32 -0x1.069f2d4690fb8p-31 0x1.10c4a3a300f0fp-30 -0x1.45d24c1553b8dp-29
        0x1.c92e10eca7a23p-28 -0x1.8922f957a2ee5p-26 0x1.b9302a873b418p-24 -0x1.642312741e464p-21
        0x1.e8e009ca8f2fcp-18 -0x1.938da0a0a6a19p-13 0x1.7f323705062fbp-5
        """
    ),
}
I0_NEAR = {  # e**-x I0(x) in x - 4, 0 <= x <= 8
    DType.F32: _read(
        """
        0x1.f095d0p-42 -0x1.1e3792p-38 0x1.9d05dap-38 -0x1.c1298ep-36 0x1.c99720p-31 -0x1.949530p-28
        0x1.dc812ap-26 -0x1.49aa70p-23 0x1.d3dc42p-21 -0x1.2048eap-18 0x1.447d8ep-16 -0x1.5b746ap-14
        0x1.65c648p-12 -0x1.6cc30cp-10 0x1.8322bcp-8 -0x1.cedd6ap-6 0x1.a7f0a0p-3
        """
    ),
    DType.F64: _read(
        """
        -0x1.409665a03765ap-88 0x1.332208b1b9040p-84 -0x1.0e148b0af9254p-81 0x1.c35f7ef8ecfc7p-78
        -0x1.e70761a76cf5bp-74 0x1.8aa9ed99d4de8p-70 -0x1.246102354dd25p-66 0x1.b170d36b55864p-63
        -0x1.3666062a15f5fp-59 0x1.a6d2ef17e0495p-56 -0x1.12c45b18c205dp-52 0x1.5496c575b16e4p-49
        -0x1.918057560fb50p-46 0x1.c0f4afe538061p-43 -0x1.daf9ae8ac58f3p-40 0x1.da1a9fb31a327p-37
        -0x1.bd258ef81b1b7p-34 0x1.87e867ba41db8p-31 -0x1.427b099142586p-28 0x1.ee6f564cfa915p-26
        -0x1.602411e2b84cbp-23 0x1.d11e10f60db14p-21 -0x1.1cd73a8e6cd6ep-18 0x1.44b6196a78062p-16
        -0x1.5c028fe647844p-14 0x1.65c235bfeaa72p-12 -0x1.6cb8d0c91588fp-10 0x1.8322d1d8a3bbbp-8
        -0x1.cedda0048620cp-6 0x1.a7f09f8eedf5ap-3
        """
    ),
}
I1_NEAR = {  # e**-x I1(x) / x, likewise
    DType.F32: _read(
        """
        0x1.35e3c6p-44 -0x1.7d415ap-41 0x1.e12846p-40 -0x1.9a6838p-37 0x1.ae82acp-33 -0x1.9b4544p-30
        0x1.3513b6p-27 -0x1.f0ffecp-25 0x1.84d498p-22 -0x1.14d90cp-19 0x1.6de9c0p-17 -0x1.c4b0f0p-15
        0x1.053188p-12 -0x1.1882b8p-10 0x1.16c38ep-8 -0x1.f4baf8p-7 0x1.6e14ecp-5
        """
    ),
    DType.F64: _read(
        """
        -0x1.9be8fdf579908p-92 0x1.99db77e00f02dp-88 -0x1.95ae4a3a5ec82p-85 0x1.65dc717d15110p-81
        -0x1.80875810a1429p-77 0x1.46a890c79f1e3p-73 -0x1.01b4b419a1fcbp-69 0x1.93a99c550319ep-66
        -0x1.317ffb356f636p-62 0x1.ba196041625d2p-59 -0x1.3269f669d578fp-55 0x1.969330fb70d0ep-52
        -0x1.01a43775d9f1cp-48 0x1.37430c18eefeap-45 -0x1.65bf65dd72f08p-42 0x1.8656c1654765cp-39
        -0x1.93682690e9b9ap-36 0x1.89f8a69545405p-33 -0x1.6ab6a3876ed57p-30 0x1.3a0c1a007877fp-27
        -0x1.fe3d9c01a6736p-25 0x1.84125b0d2de85p-22 -0x1.13d5f358a4edap-19 0x1.6df95e8bdfc8fp-17
        -0x1.c4daa51341c6dp-15 0x1.0530f817ffa4ap-12 -0x1.1881379ffb5c2p-10 0x1.16c390ddb08ecp-8
        -0x1.f4bb071a7752bp-7 0x1.6e14eb8e5d319p-5
        """
    ),
}
I0_FAR = {  # e**-x I0(x) sqrt(x) in 8 / x - 0.5, x >= 8
    DType.F32: _read(
        """
        0x1.20edeap-18 0x1.d49748p-18 0x1.463d02p-17 0x1.8c11eap-16 0x1.75d91ep-14 0x1.1dab2ap-11
        0x1.b8796ap-8 0x1.9bd428p-2
        """
    ),
    DType.F64: _read(
        """
        0x1.de985e80c26e1p-12 0x1.36172c123f453p-14 -0x1.9ae1031554e04p-11 -0x1.2e287745e1a2ep-13
        0x1.499ae7b4d59c2p-11 0x1.2c4a86bc0bfefp-13 -0x1.4d2b550bd6e76p-12 -0x1.ac9afa081a33ep-14
        0x1.d29741886cb2dp-14 0x1.f7410b7f70fd0p-15 -0x1.62c3f99ada19fp-16 -0x1.c9aa2ffce2ca1p-16
        -0x1.d3b411548af05p-18 0x1.02cf9254e7670p-18 0x1.7257db9ed6674p-18 0x1.51d5f84cd03f6p-18
        0x1.7d0e5f25bc841p-18 0x1.3f49933733f90p-17 0x1.8e513accc76a3p-16 0x1.75e5ee7822f78p-14
        0x1.1daa72b5e2366p-11 0x1.b87969bb93a48p-8 0x1.9bd428ad249a5p-2
        """
    ),
}
I1_FAR = {  # e**-x I1(x) sqrt(x), likewise
    DType.F32: _read(
        """
        -0x1.452e48p-18 -0x1.08893ap-17 -0x1.7cfc0ep-17 -0x1.e9e586p-16 -0x1.f88f40p-14 -0x1.cbc62cp-11
        -0x1.3f7962p-6 0x1.8ebe78p-2
        """
    ),
    DType.F64: _read(
        """
        -0x1.f23ff1f27dca9p-12 -0x1.1f6f8a3689d3bp-14 0x1.ac4bf6a87bc29p-11 0x1.1be99bbf474cep-13
        -0x1.5873a50ddf275p-11 -0x1.1ff732137576bp-13 0x1.5e0ee1eae723fp-12 0x1.a62d3a5241febp-14
        -0x1.f053fd33757dcp-14 -0x1.fec28b5e30e16p-15 0x1.89426861550d7p-16 0x1.df68969b0012bp-16
        0x1.d2f43270388f8p-18 -0x1.20dfa102cdc55p-18 -0x1.91b62a0449ae7p-18 -0x1.7280f7124367dp-18
        -0x1.ad8c9576be72ap-18 -0x1.76136c8d9dbb3p-17 -0x1.ec8e10cda9622p-16 -0x1.f89c230c1c6c7p-14
        -0x1.cbc54df1e8a30p-11 -0x1.3f796198ee5e3p-6 0x1.8ebe783a84030p-2
        """
    ),
}

WORDS_OF_TWO_OVER_PI = """
    a2f9836e4e441529 fc2757d1f534ddc0 db6295993c439041 fe5163abdebbc561 b7246e3a424dd2e0 06492eea09d1921c
    fe1deb1cb129a73e e88235f52ebb4484 e99c7026b45f7e41 3991d639835339f4 9c845f8bbdf9283b 1ff897ffde05980f
    ef2f118b5a0a6d1f 6d367ecf27cb09b7 4f463f669e5fea2d 7527bac7ebe5f17b 3d0739f78a5292ea 6bfb5fb11f8d5d08
    56033046fc7b6bab
"""
TWO_OVER_PI = tuple(int(word, 16) for word in WORDS_OF_TWO_OVER_PI.split())
"""The first 1216 bits behind the binary point."""
